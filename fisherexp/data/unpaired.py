"""Samples of two distributions, unpaired: what a bridge is to be found between. Draws are from the given generator."""

import math
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fisherexp.data.errors import DataError, reason_of

ROLL_NOISE, ROLL_SCALE = 0.8, 7.5  # of Korotin et al.'s swiss roll
MODE_RADIUS, MODE_DEVIATION = 3.0, 0.2


class Gaussian(NamedTuple):
    """mean: (d,). covariance: (d, d), positive definite."""

    mean: Tensor
    covariance: Tensor

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """(number, d)."""
        noise = torch.randn(number, len(self.mean), dtype=self.mean.dtype, generator=generator)
        return self.mean + noise @ torch.linalg.cholesky(self.covariance).T


def standard_normal(dimension: int) -> Gaussian:
    """N(0, 1) in every direction, float64."""
    return Gaussian(torch.zeros(dimension, dtype=torch.float64), torch.eye(dimension, dtype=torch.float64))


def tilted_gaussian(dimension: int, shift: float, scale: float, generator: torch.Generator) -> Gaussian:
    """Mean `shift` in every coordinate, deviations from ½ to `scale` along axes of a random rotation; float64."""
    axes = torch.linalg.qr(torch.randn(dimension, dimension, dtype=torch.float64, generator=generator)).Q
    variances = torch.linspace(scale, 0.5, dimension, dtype=torch.float64).square()
    return Gaussian(torch.full((dimension,), shift, dtype=torch.float64), axes * variances @ axes.T)


def swiss_roll(number: int, generator: torch.Generator) -> Tensor:
    """(number, 2): a noisy spiral of scikit-learn's size, divided by 7.5, as in Korotin et al., ICLR 2024."""
    turn = 1.5 * math.pi * (1 + 2 * torch.rand(number, generator=generator))
    spiral = torch.stack([turn * turn.cos(), turn * turn.sin()], dim=1)
    return (spiral + ROLL_NOISE * torch.randn(number, 2, generator=generator)) / ROLL_SCALE


def ring_of_modes(number: int, modes: int, generator: torch.Generator) -> Tensor:
    """(number, 2): `modes` Gaussians of equal weight and deviation 0.2 on a circle of radius 3."""
    angles = 2 * math.pi / modes * torch.randint(modes, (number,), generator=generator)
    centers = MODE_RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)
    return centers + MODE_DEVIATION * torch.randn(number, 2, generator=generator)


def read_unpaired(path: Path) -> tuple[Tensor, Tensor]:
    """The user's .npz file with arrays source (n, d) and target (m, d), as float32. Raises DataError, in one line."""
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ("source", "target") if name not in file]
            if missing:
                there = ", ".join(file.files) or "nothing"
                raise DataError(f"{path} has no {' and no '.join(missing)}; it has {there}")
            found = [torch.from_numpy(file[name].astype(np.float32)) for name in ("source", "target")]
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a readable .npz file of plain arrays: {reason_of(error)}") from None
    shapes = " and ".join(str(tuple(points.shape)) for points in found)
    if any(points.ndim != 2 for points in found) or found[0].shape[1] != found[1].shape[1]:
        raise DataError(f"{path}: source and target have shapes {shapes}; (n, d) and (m, d) are expected")
    if min(map(len, found)) < 4:
        raise DataError(f"{path}: source and target have shapes {shapes}; four points at least are expected of each")
    if not all(points.isfinite().all() for points in found):
        raise DataError(f"{path}: source or target has entries that are not finite")
    return found[0], found[1]
