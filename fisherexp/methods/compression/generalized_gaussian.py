"""The generalized Gaussian distribution of weights: its shape from a sample, draws, a map of a sample onto it.

    p(w) = ν / (2 β Γ(1/ν)) · exp(-(|w| / β)^ν),   E[w²] = β² Γ(3/ν) / Γ(1/ν)

Shape ν = 2 is the Gaussian, 1 the Laplacian; the smaller ν, the more weights are next to zero and the heavier are the
tails.
"""

from collections.abc import Iterable

import torch
from scipy.stats import gennorm
from torch import Tensor

# Where the shape is looked up, as in the code of "It Takes a Good Model to Train a Good Model" (arXiv 2506.00486).
SHAPES = torch.arange(10, 300, dtype=torch.float64) / 100


def moment_ratio(shape: Tensor) -> Tensor:
    """ρ = E[w²] / E[|w|]² = Γ(1/ν) Γ(3/ν) / Γ(2/ν)², which falls with ν."""
    return (torch.lgamma(1 / shape) + torch.lgamma(3 / shape) - 2 * torch.lgamma(2 / shape)).exp()


RATIOS = moment_ratio(SHAPES)


@torch.no_grad()
def estimated_shape(tensors: Iterable[Tensor]) -> float | None:
    """ν of all numbers of `tensors` together: that of `SHAPES` whose ratio is nearest to N Σw² / (Σ|w|)². None if all
    are zero."""
    tensors = list(tensors)
    # Of one tensor in its own precision, the sum over tensors in double.
    count = sum(tensor.numel() for tensor in tensors)
    squares = sum(tensor.square().sum().item() for tensor in tensors)
    magnitude = sum(tensor.abs().sum().item() for tensor in tensors)
    if magnitude == 0:
        return None
    return SHAPES[(RATIOS - count * squares / magnitude**2).abs().argmin()].item()


def scale_of(shape: float, variance: float) -> float:
    """β at which the distribution has this variance."""
    a, b = torch.lgamma(torch.tensor([1 / shape, 3 / shape], dtype=torch.float64))
    return (variance * (a - b).exp().item()) ** 0.5


def draws(size: tuple[int, ...], shape: float, variance: float) -> Tensor:
    """Independent draws, float64, from torch's global generator: ± β G^(1/ν) with G from Gamma(1/ν, 1)."""
    gamma = torch.distributions.Gamma(torch.tensor(1 / shape, dtype=torch.float64), 1.0).sample(size)
    sign = 2.0 * torch.randint(2, size) - 1
    return sign * scale_of(shape, variance) * gamma ** (1 / shape)


def reshaped(values: Tensor, shape: float, variance: float) -> Tensor:
    """Values (any shape of tensor) in their order, as quantiles F⁻¹((rank + 1/2) / n) of the distribution.

    Of equal values the earlier gets the smaller quantile.
    """
    ranks = torch.empty(values.numel(), dtype=torch.float64)
    ranks[values.flatten().cpu().argsort(stable=True)] = torch.arange(values.numel(), dtype=torch.float64)
    quantiles = gennorm.ppf(((ranks + 0.5) / values.numel()).numpy(), shape, scale=scale_of(shape, variance))
    return torch.from_numpy(quantiles).view(values.shape).to(values)
