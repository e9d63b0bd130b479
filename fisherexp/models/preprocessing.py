"""How images were prepared that weights were trained on: what they must meet again wherever they are used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """mean, std: one number a channel, of intensities in [0, 1]. size: side in pixels of the images they were trained
    on. crop: share of the side that their published evaluation cuts out of the middle. interpolation: 'bilinear',
    'bicubic' or 'nearest', with which images were brought to that size. None: not known.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None = None
    crop: float | None = None
    interpolation: str | None = None

    def __str__(self) -> str:
        return f"mean {_numbers(self.mean)}, std {_numbers(self.std)}"


def of_timm(found: Mapping[str, Any]) -> Preprocessing:
    """Of timm's `pretrained_cfg`."""
    size, crop, way = found.get("input_size"), found.get("crop_pct"), found.get("interpolation")
    mean, std = found.get("mean") or IMAGENET_MEAN, found.get("std") or IMAGENET_STD
    return Preprocessing(tuple(mean), tuple(std), size[-1] if size else None, crop, way or None)


def of_torchvision(transforms: Any) -> Preprocessing:
    """Of what `weights.transforms()` makes, an ImageClassification."""
    size, whole = transforms.crop_size[0], transforms.resize_size[0]
    way = transforms.interpolation.value
    return Preprocessing(tuple(transforms.mean), tuple(transforms.std), size, round(size / whole, 3), way)


def same(first: Sequence[float], second: Sequence[float]) -> bool:
    """Do two lists of constants mean the same, one number standing for all channels?"""
    longest = max(len(first), len(second))
    pairs = zip(*(list(v) * longest if len(v) == 1 else list(v) for v in (first, second)), strict=False)
    return {len(first), len(second)} <= {1, longest} and all(abs(a - b) < 1e-6 for a, b in pairs)


def _numbers(values: Sequence[float]) -> str:
    """One number where all channels have the same."""
    return ", ".join(f"{value:.3f}" for value in (values[:1] if len(set(values)) == 1 else values))
