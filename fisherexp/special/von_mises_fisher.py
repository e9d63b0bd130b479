"""The von Mises-Fisher distribution on the unit sphere in R^p, in as many dimensions as features have.

    density exp(κ μᵀx) C_p(κ) with C_p(κ) = κ^(p/2-1) / ((2π)^(p/2) I_{p/2-1}(κ))
    E[x] = A_p(κ) μ with A_p = I_{p/2} / I_{p/2-1}

κ ≥ 0 is the concentration (0: uniform), μ the mean direction. Mardia, Jupp: Directional Statistics (2000). Estimates of
κ from R̄ = ‖mean of x‖: R̄ (p - R̄²) / (1 - R̄²) in closed form (Banerjee et al., JMLR 2005), after two Newton steps from
there (Sra, Computational Statistics 2012), or at the root of A_p(κ) = R̄. Everything is float64; logarithms in nats.
"""

import math

import numpy as np
import torch
from torch import Tensor

from fisherexp.special.log_bessel import iv_ratio_gap, log_ive

TOLERANCE = 1e-13  # relative change of κ with which Newton's method ends; rounding keeps it from much less
LIMIT = 50  # steps, of which it takes six at most


def log_peak(kappa: Tensor, p: int) -> Tensor:
    """Log-density at the mean direction, log C_p(κ) + κ, which stays exact where κ is large. kappa: any shape."""
    uniform = math.lgamma(p / 2) - math.log(2) - p / 2 * math.log(math.pi)
    inside = torch.where(kappa > 0, kappa, 1.0)
    v = p / 2 - 1
    return torch.where(kappa > 0, v * inside.log() - p / 2 * math.log(2 * math.pi) - log_ive(v, inside), uniform)


def log_density(x: Tensor, mean: Tensor, kappa: Tensor) -> Tensor:
    """Of unit vectors x (..., p), with respect to area: (...)."""
    return log_peak(kappa, x.shape[-1]) - kappa / 2 * (x - mean).square().sum(-1)


def cosine_log_density(t: Tensor, kappa: Tensor, p: int) -> Tensor:
    """Of the cosine t in (-1, 1) of x with the mean direction: the sphere's share at t times the density there."""
    rim = math.log(2) + (p - 1) / 2 * math.log(math.pi) - math.lgamma((p - 1) / 2)  # area of the sphere in p - 1
    return log_peak(kappa, p) - kappa * (1 - t) + rim + (p - 3) / 2 * torch.log1p(-t.square())


def mean_gap(kappa: Tensor, p: int) -> Tensor:
    """1 - A_p(κ): by how much the mean of x falls short of length 1."""
    return iv_ratio_gap(p / 2 - 1, kappa)


def entropy(kappa: Tensor, p: int) -> Tensor:
    """-E[log density]; that of the uniform distribution, the log of the sphere's area, is the largest."""
    return kappa * mean_gap(kappa, p) - log_peak(kappa, p)


def kl_divergence(mean: Tensor, kappa: Tensor, other_mean: Tensor, other_kappa: Tensor) -> Tensor:
    """KL of vMF(mean (p,), kappa) from vMF(other_mean, other_kappa)."""
    p = len(mean)
    gap = mean_gap(kappa, p)
    # E[1 - other_meanᵀ x] = 1 - A cos, in terms that do not cancel
    further = gap + (1 - gap) * (mean - other_mean).square().sum() / 2
    return log_peak(kappa, p) - kappa * gap - log_peak(other_kappa, p) + other_kappa * further


def resultant(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean direction (p,) of unit vectors (n, p), and 1 - R̄.

    Raises ValueError, in one line, where the vectors have no mean direction.
    """
    mean = x.mean(0)
    length = mean.norm()
    if not length > 0:
        raise ValueError(f"the {len(x)} vectors sum to zero: they have no mean direction")
    return mean / length, (x - mean).square().sum(1).mean() / (1 + length)


def closed_form(gap: Tensor, p: int) -> Tensor:
    """κ from 1 - R̄ in (0, 1): R̄ (p - R̄²) / (1 - R̄²)."""
    length = 1 - gap
    return length * (p - length.square()) / (gap * (2 - gap))


def newton_step(kappa: Tensor, gap: Tensor, p: int) -> Tensor:
    """κ after a step towards A_p(κ) = R̄, with A' = 1 - A² - (p-1) A / κ, from 1 - R̄."""
    own = mean_gap(kappa, p)
    slope = own * (2 - own) - (p - 1) * (1 - own) / kappa
    return kappa + (own - gap) / slope


def maximum_likelihood(gap: Tensor, p: int) -> Tensor:
    """The root κ of A_p(κ) = R̄, from 1 - R̄ in (0, 1), any shape: Newton's method from the closed form."""
    kappa = closed_form(gap, p)
    for _ in range(LIMIT):
        before, kappa = kappa, newton_step(kappa, gap, p)
        if ((kappa / before - 1).abs() <= TOLERANCE).all():
            break
    return kappa


def sample(mean: Tensor, kappa: float, count: int, generator: torch.Generator) -> Tensor:
    """Unit vectors (count, p): Wood's rejection (Communications in Statistics 1994) for their cosine with the mean."""
    p = len(mean)
    draws = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    b = (p - 1) / (2 * kappa + math.hypot(2 * kappa, p - 1))
    # x0 = 1 - near; 1 - w, 1 - x0 w and 1 - x0² as sums, because for large κ they are small differences of ones
    near = 2 * b / (1 + b)
    lowest = math.log(near * (2 - near))
    cosines, missing = [], count
    while missing:
        z = draws.beta((p - 1) / 2, (p - 1) / 2, 2 * missing + 16)
        gap = 2 * b * z / (1 - (1 - b) * z)  # 1 - w
        level = kappa * (near - gap) + (p - 1) * (np.log(near + (1 - near) * gap) - lowest)
        taken = gap[level >= np.log(draws.random(len(z)))][:missing]
        cosines.append(taken)
        missing -= len(taken)
    gap = torch.from_numpy(np.concatenate(cosines)) if count else torch.empty(0, dtype=torch.float64)
    around = torch.randn(count, p, generator=generator, dtype=torch.float64)
    around = around - (around @ mean)[:, None] * mean
    around = around / around.norm(dim=1, keepdim=True)
    drawn = (1 - gap)[:, None] * mean + (gap * (2 - gap)).sqrt()[:, None] * around
    return drawn / drawn.norm(dim=1, keepdim=True)
