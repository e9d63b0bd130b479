"""The Schrödinger bridge between two Gaussians in closed form, and how far conditional Gaussians are from its own.

    plan N((m₀, m₁), [Σ₀, C; Cᵀ, Σ₁]),   C = ½ Σ₀^½ (4 Σ₀^½ Σ₁ Σ₀^½ + ε² I)^½ Σ₀^-½ - ½ ε I

of the cost |x - y|²/2 with entropy ε: Janati, Muzellec, Peyré, Cuturi, NeurIPS 2020, arXiv 2006.02572; Bunne et al.,
AISTATS 2023, arXiv 2202.05722.
"""

import torch
from torch import Tensor

Moments = tuple[Tensor, Tensor]


def root(matrices: Tensor) -> Tensor:
    """The symmetric square root of positive semidefinite matrices (…, d, d)."""
    values, axes = torch.linalg.eigh(matrices)
    return axes * values.clamp(min=0).sqrt().unsqueeze(-2) @ axes.mT


def cross_covariance(source: Tensor, target: Tensor, epsilon: float) -> Tensor:
    """C (d, d) between Gaussians of covariances `source` and `target`, both (d, d) and positive definite."""
    half, identity = root(source), torch.eye(len(source)).to(source)
    middle = root(4 * half @ target @ half + epsilon**2 * identity)
    return (half @ middle @ torch.linalg.inv(half) - epsilon * identity) / 2


def conditional_moments(points: Tensor, source: Moments, target: Moments, epsilon: float) -> Moments:
    """Mean (n, d) and covariance (n, d, d) of the plan's y for each x. source, target: mean (d,), covariance (d, d)."""
    gain = torch.linalg.solve(source[1], cross_covariance(source[1], target[1], epsilon)).mT
    mean = target[0] + (points - source[0]) @ gain.mT
    return mean, (target[1] - gain @ source[1] @ gain.mT).expand(len(points), -1, -1)


def bures_wasserstein(one: Moments, other: Moments) -> Tensor:
    """Squared Wasserstein-2 distance of Gaussians: means (…, d), covariances (…, d, d) -> (…)."""
    half = root(one[1])
    middle = root(half @ other[1] @ half)
    traces = (one[1] + other[1] - 2 * middle).diagonal(dim1=-2, dim2=-1).sum(-1)
    return (one[0] - other[0]).square().sum(-1) + traces.clamp(min=0)
