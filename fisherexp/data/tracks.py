"""Detections of a video: what each looks like (a feature), its frame, and who it is."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fisherexp.data.errors import DataError, reason_of

IDENTITY, NOISE = 0.35, 0.15  # standard deviations of a coordinate; the common part has 1
NUISANCES = 6


class Detections(NamedTuple):
    """features: (n, d) float64, of length 1. frames: (n,) int64, ascending. identities: (n,) int64, 0…"""

    features: Tensor
    frames: Tensor
    identities: Tensor


def synthetic_tracks(
    identities: int,
    frames: int,
    dimension: int,
    nuisance: float,
    drift: float,
    generator: torch.Generator,
    calm: int = 0,
) -> Detections:
    """Every identity in every frame: common part + identity + nuisance + noise, of length 1.

    nuisance: strength of six directions, shared by all, in which each detection moves at random (pose, light); it rises
    from zero to this over the first `calm` frames. drift: how far an identity's mean moves each frame, in the units of
    a coordinate.
    """

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    common, people = normal(dimension), IDENTITY * normal(identities, dimension)
    directions = normal(NUISANCES, dimension)
    strength = nuisance * (torch.arange(1, frames + 1) / max(calm, 1)).clamp(max=1)
    walk = drift * normal(frames, identities, dimension).cumsum(0)
    moved = strength[:, None, None] * normal(frames, identities, NUISANCES) @ directions
    features = common + people + walk + moved + NOISE * normal(frames, identities, dimension)
    return Detections(
        torch.nn.functional.normalize(features.flatten(0, 1), dim=1),
        torch.arange(frames).repeat_interleave(identities),
        torch.arange(identities).repeat(frames),
    )


def read_tracks(path: Path, features: Path | None = None) -> Detections:
    """The user's own detections: an .npz file with features (n, d), frames (n,) and identities (n,); or the text file
    of the MOT challenges (frame, identity, …, seventh column 0: left out) with features in the same order, a .npy file
    (n, d). Raises DataError, in one line, naming the file."""
    named = {"features": features, "frames": path, "identities": path}
    try:
        if features is None:
            with np.load(path, allow_pickle=False) as file:
                if missing := [name for name in named if name not in file]:
                    there = ", ".join(file.files) or "nothing"
                    raise DataError(f"{path} has no {' and no '.join(missing)}; it has {there}")
                arrays = {name: file[name] for name in named}
        else:
            rows = np.loadtxt(path, delimiter=",", ndmin=2)
            arrays = {"features": np.load(features, allow_pickle=False), "frames": rows[:, 0], "identities": rows[:, 1]}
    except (OSError, EOFError, ValueError, IndexError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: not the arrays, or the lines of the MOT challenges, expected: {reason_of(error)}"
        ) from None
    count = len(arrays["frames"])
    shapes = {name: array.shape for name, array in arrays.items()}
    if arrays["features"].ndim != 2 or len({shape[0] for shape in shapes.values()}) > 1 or count < 2:
        said = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DataError(f"{path}: shapes are {said}; features (n, d), frames (n,) and identities (n,) are expected")
    if features is not None and rows.shape[1] > 6:
        arrays = {name: array[rows[:, 6] != 0] for name, array in arrays.items()}
    found = torch.from_numpy(arrays["features"].astype(np.float64))
    if not found.isfinite().all() or not (found.norm(dim=1) > 0).all():
        raise DataError(f"{path}: features must be finite, and none of them all zeros")
    order = np.argsort(arrays["frames"], kind="stable")
    _, identities = np.unique(arrays["identities"][order].astype(np.int64), return_inverse=True)
    frames = torch.from_numpy(arrays["frames"][order].astype(np.int64))
    if len(torch.stack([frames, torch.from_numpy(identities)]).unique(dim=1)[0]) < len(frames):
        raise DataError(f"{path}: an identity is in a frame twice")
    return Detections(torch.nn.functional.normalize(found[order], dim=1), frames, torch.from_numpy(identities))
