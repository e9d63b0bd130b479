"""A mixture of Gaussians with its density and score, the gradient of log p, in closed form."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class GaussianMixture(NamedTuple):
    """weights: (K,), of sum 1. means: (K, d). covariances: (K, d, d), positive definite."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def smoothed(self, noise: float) -> "GaussianMixture":
        """The density of a draw plus N(0, noise² I)."""
        return self._replace(covariances=self.covariances + noise**2 * torch.eye(self.means.shape[1]).to(self.means))

    def log_density(self, points: Tensor) -> Tensor:
        """(n, d) -> (n,)."""
        return self._joint(points)[0].logsumexp(1)

    def score(self, points: Tensor) -> Tensor:
        """∇ log p, (n, d) -> (n, d)."""
        joint, pulls = self._joint(points)
        return torch.einsum("nk,nkd->nd", joint.softmax(1), pulls)

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """(number, d)."""
        chosen = torch.multinomial(self.weights, number, replacement=True, generator=generator)
        noise = torch.randn(number, self.means.shape[1], dtype=self.means.dtype, generator=generator)
        factors = torch.linalg.cholesky(self.covariances)[chosen]
        return self.means[chosen] + (factors @ noise[..., None]).squeeze(-1)

    def _joint(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """log of weight times density (n, K), and the gradient of the log of each component (n, K, d)."""
        away = self.means - points[:, None]
        pulls = torch.einsum("kde,nke->nkd", torch.linalg.inv(self.covariances), away)
        volume = torch.logdet(2 * math.pi * self.covariances)
        return self.weights.log() - ((away * pulls).sum(-1) + volume) / 2, pulls
