"""A Schrödinger bridge whose potential is a mixture of Gaussians: plan, drift and normalizer in closed form.

    v(y) = Σ_k α_k N(y | r_k, ε S_k)                 the adjusted potential
    c(x) = ∫ exp(xᵀy/ε) v(y) dy = Σ_k α_k exp((xᵀ S_k x + 2 r_kᵀ x) / 2ε)
    π(y | x) = exp(xᵀy/ε) v(y) / c(x)                a mixture with means r_k + S_k x and covariances ε S_k
    g(x, t) = (E[y | x_t = x] - x) / (1 - t)         the drift of dx = g dt + √ε dW

Korotin, Gushchin, Burnaev: Light Schrödinger Bridge, ICLR 2024, arXiv 2310.01174. x: (n, d); K components; all
functions work in the mixture's type and on its device.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Mixture(NamedTuple):
    """log_weights: log α (K,), up to a common constant. means: r (K, d). variances: eigenvalues of S (K, d).

    axes: its eigenvectors as columns (K, d, d); None: S is diagonal.
    """

    log_weights: Tensor
    means: Tensor
    variances: Tensor
    axes: Tensor | None = None

    def turned(self, points: Tensor) -> Tensor:
        """Points (n, d), or one for each component (n, K, d), in the components' own axes: (n, K, d)."""
        points = points.unsqueeze(-2) if points.ndim == 2 else points
        if self.axes is None:
            return points.expand(*points.shape[:-2], *self.means.shape)
        return torch.einsum("kde,nkd->nke", self.axes, points.expand(*points.shape[:-2], *self.means.shape))

    def turned_back(self, points: Tensor) -> Tensor:
        """The inverse, of (n, K, d)."""
        return points if self.axes is None else torch.einsum("kde,nke->nkd", self.axes, points)


class Conditional(NamedTuple):
    """A mixture for each x: log_weights (n, K), means (n, K, d), variances (K, d) along the components' axes."""

    log_weights: Tensor
    means: Tensor
    variances: Tensor


def log_potential(mixture: Mixture, y: Tensor, epsilon: float) -> Tensor:
    """log v(y): (n,)."""
    spread = epsilon * mixture.variances
    scaled = mixture.turned(y[:, None] - mixture.means).square() / spread
    logs = mixture.log_weights - (scaled.sum(-1) + (2 * math.pi * spread).log().sum(-1)) / 2
    return logs.logsumexp(-1)


def log_normalizer(mixture: Mixture, x: Tensor, epsilon: float) -> Tensor:
    """log c(x): (n,)."""
    quadratic = (mixture.variances * mixture.turned(x).square()).sum(-1)
    return (mixture.log_weights + (quadratic + 2 * x @ mixture.means.T) / (2 * epsilon)).logsumexp(-1)


def bridge_loss(mixture: Mixture, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """E log c(x) - E log v(y) over unpaired batches: KL(π* ‖ π) up to a constant, which may be of any size and sign."""
    return log_normalizer(mixture, x, epsilon).mean() - log_potential(mixture, y, epsilon).mean()


def conditional(mixture: Mixture, x: Tensor, epsilon: float, time: float = 0.0) -> Conditional:
    """The end point's distribution of the bridge that is at x at `time` in [0, 1); π(y | x) at 0."""
    center = mixture.turned(mixture.means[None])
    precision = (1 / mixture.variances + time / (1 - time)) / epsilon
    pull = (mixture.turned(x) / (1 - time) + center / mixture.variances) / epsilon
    logs = mixture.log_weights - (mixture.variances.log() + precision.log()).sum(-1) / 2
    logs = logs + (pull.square() / precision - center.square() / (epsilon * mixture.variances)).sum(-1) / 2
    return Conditional(logs.log_softmax(-1), mixture.turned_back(pull / precision), 1 / precision)


def conditional_moments(mixture: Mixture, x: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Mean (n, d) and covariance (n, d, d) of π(y | x)."""
    found = conditional(mixture, x, epsilon)
    weights = found.log_weights.exp()
    mean = torch.einsum("nk,nkd->nd", weights, found.means)
    axes = torch.eye(x.shape[1]).to(x) if mixture.axes is None else mixture.axes
    within = torch.einsum("nk,kde->nde", weights, (axes * found.variances.unsqueeze(-2)) @ axes.mT)
    away = found.means - mean[:, None]
    return mean, within + torch.einsum("nk,nkd,nke->nde", weights, away, away)


def plan_sample(mixture: Mixture, x: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """A y for each x, drawn from π(y | x): (n, d)."""
    found = conditional(mixture, x, epsilon)
    chosen = torch.multinomial(found.log_weights.exp(), 1, generator=generator)
    noise = torch.randn(found.means.shape, dtype=x.dtype, generator=generator) * found.variances.sqrt()
    drawn = found.means + mixture.turned_back(noise)
    return drawn.take_along_dim(chosen[..., None], 1).squeeze(1)


def drift(mixture: Mixture, x: Tensor, epsilon: float, time: float) -> Tensor:
    """g(x, t): (n, d), `time` in [0, 1)."""
    found = conditional(mixture, x, epsilon, time)
    return (torch.einsum("nk,nkd->nd", found.log_weights.exp(), found.means) - x) / (1 - time)


def bridge_point(x: Tensor, y: Tensor, epsilon: float, time: float, generator: torch.Generator) -> Tensor:
    """Where the bridge pinned at x and y is at `time` in [0, 1]: (n, d)."""
    noise = torch.randn(x.shape, dtype=x.dtype, generator=generator)
    return time * y + (1 - time) * x + math.sqrt(time * (1 - time) * epsilon) * noise


def trajectories(mixture: Mixture, x: Tensor, epsilon: float, steps: int, generator: torch.Generator) -> Tensor:
    """Paths of the bridge from x by Euler and Maruyama: (steps + 1, n, d)."""
    path = [x]
    for step in range(steps):
        noise = torch.randn(x.shape, dtype=x.dtype, generator=generator)
        ahead = drift(mixture, path[-1], epsilon, step / steps) / steps
        path.append(path[-1] + ahead + math.sqrt(epsilon / steps) * noise)
    return torch.stack(path)
