"""From a name, a severity and a seed to corrupted images."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fisherexp.data.corruptions import blur, digital, frost, noise, spatter, weather
from fisherexp.data.corruptions.tables import TABLES
from fisherexp.seeds import generator

# Images that share one random stream. Part of what a seed means: with another number every draw is another.
BLOCK = 128
SMALLEST = 8


def no_draws(count: int, shape: noise.Shape, constants: tuple, generator: torch.Generator) -> dict[str, Tensor]:
    return {}


@dataclass(frozen=True)
class Corruption:
    """apply(images, *constants, **draws) -> images; draw(count, (C, H, W), constants, generator) -> draws."""

    apply: Callable[..., Tensor]
    draw: Callable[..., dict[str, Tensor]] = no_draws


CORRUPTIONS = {
    "gaussian_noise": Corruption(noise.gaussian_noise, noise.normal_field),
    "shot_noise": Corruption(noise.shot_noise, noise.uniform_field),
    "impulse_noise": Corruption(noise.impulse_noise, noise.uniform_field),
    "defocus_blur": Corruption(blur.defocus_blur),
    "glass_blur": Corruption(blur.glass_blur, blur.glass_draws),
    "motion_blur": Corruption(blur.motion_blur, blur.motion_draws),
    "zoom_blur": Corruption(blur.zoom_blur),
    "snow": Corruption(weather.snow, weather.snow_draws),
    "frost": Corruption(weather.frost, frost.crop_draws),
    "fog": Corruption(weather.fog, weather.fog_draws),
    "brightness": Corruption(digital.brightness),
    "contrast": Corruption(digital.contrast),
    "elastic_transform": Corruption(digital.elastic_transform, digital.elastic_draws),
    "pixelate": Corruption(digital.pixelate),
    "jpeg_compression": Corruption(digital.jpeg_compression),
    "speckle_noise": Corruption(noise.speckle_noise, noise.normal_field),
    "gaussian_blur": Corruption(blur.gaussian_blur),
    "spatter": Corruption(spatter.spatter, spatter.spatter_draws),
    "saturate": Corruption(digital.saturate),
}


def corrupt(
    images: Tensor,
    name: str,
    severity: int,
    *,
    table: str = "cifar",
    seed: int = 0,
    frost_folder: Path | None = None,
    quality: int | None = None,
) -> Tensor:
    """uint8 images (N, C, H, W), C = 1 or 3, corrupted: the same on every device.

    severity: 1 … 5, in the `table` 'cifar' or 'imagenet' (see tables.py). frost_folder: with the published textures;
    by default they are generated. quality: of JPEG, in which each image is then saved; none for None.
    Image i is a function of itself, its shape, i, name, severity, seed and quality alone.
    Raises ValueError for other shapes.
    """
    channels, *size = images.shape[1:]
    if channels not in (1, 3) or min(size) < SMALLEST:
        wanted = f"1 or 3 channels and at least {SMALLEST}×{SMALLEST} pixels"
        raise ValueError(f"corruptions are defined for {wanted}, not for images {tuple(images.shape[1:])}")
    constants, corruption = TABLES[table][name][severity - 1], CORRUPTIONS[name]
    draw = partial(corruption.draw, folder=frost_folder) if name == "frost" else corruption.draw
    corrupted = torch.empty_like(images)
    for number, block in enumerate(images.split(BLOCK)):
        # A whole block's draws, also where fewer images are left: image i must not depend on how many follow it.
        draws = draw(BLOCK, (channels, *size), constants, generator("corruption", name, severity, seed, number))
        draws = {key: values[: len(block)].to(images.device) for key, values in draws.items()}
        first = number * BLOCK
        found = corruption.apply(block, *constants, **draws)
        corrupted[first : first + len(block)] = found if quality is None else digital.jpeg_compression(found, quality)
    return corrupted
