"""Energy distance: how far apart two distributions are, by distances between samples alone."""

import torch
from torch import Tensor


def energy_distance(one: Tensor, other: Tensor) -> Tensor:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of samples (n, d) and (m, d), in units of their distances; 0 if they agree.

    Pairs of a point with itself are left out, so that it is unbiased, and may come out a little below 0. n, m ≥ 2.
    Székely, Rizzo (2004); scipy.stats.energy_distance is its root in one dimension, those pairs included.
    """
    return 2 * torch.cdist(one, other).mean() - _mean_distance(one) - _mean_distance(other)


def _mean_distance(points: Tensor) -> Tensor:
    """Between different points of one sample."""
    count = len(points)
    return torch.cdist(points, points).sum() / (count * (count - 1))
