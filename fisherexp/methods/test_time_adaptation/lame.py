"""LAME: correct a batch's predictions so that neighbors agree; no weight changes.

Paper: Boudiaf, Mueller, Ben Ayed, Bertinetto, CVPR 2022, arXiv 2201.05718. With predictions p_i, affinities k_ij of
features,

    min over distributions Y   Σ_i KL(y_i || p_i) - Σ_ij k_ij y_i · y_j,
    by   y_i ← softmax(log p_i + Σ_j k_ij y_j)   until the value changes by less than 1e-8 of itself.

It helps where labels come in runs and harms where they do not. The answer is log y. As in the official code,
an image has an affinity to itself with `rbf` and `linear`, and counts as its own first neighbor for σ. Where it
differs: it takes log(p + 1e-10) for log p, which lets neighbors overrule a prediction of almost 0 (floor=1e-10). The
paper has no floor, nor have our results.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.types import Count, NonNegative
from fisherexp.methods.test_time_adaptation.adaptation import Adaptation
from fisherexp.methods.test_time_adaptation.entropy import log_softmax

STEPS, TOLERANCE = 100, 1e-8


def affinity(features: Tensor, kind: str, neighbors: int) -> Tensor:
    """k (N, N) of features (N, d), which are normalized to length 1.

    rbf: exp(-d_ij² / 2σ²), σ the mean distance to the neighbor of that number. knn: 1 for the nearest ones, else 0.
    linear: the scalar product.
    """
    features = F.normalize(features, dim=1)
    if kind == "linear":
        return features @ features.T
    distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    if kind == "knn":
        near = distances.topk(min(neighbors + 1, len(features)), largest=False).indices[:, 1:]
        return torch.zeros_like(distances).scatter_(1, near, 1.0)
    sigma = distances.topk(min(neighbors, len(features)), largest=False).values[:, -1].mean()
    # A batch of one, or of equal images: affinity 1, whatever σ is.
    return torch.exp(-distances.square() / (2 * sigma.square()).clamp_min(torch.finfo(sigma.dtype).tiny))


def adjusted(log_p: Tensor, k: Tensor, floor: float = 0.0) -> Tensor:
    """log y (N, C): the fixed point of the iteration, for log-probabilities (N, C) and affinities (N, N).

    floor: added to probabilities, which need not sum to 1 then.
    """
    if floor:
        log_p = (log_p.exp() + floor).log()
    log_y, last = log_p.log_softmax(1), None
    for step in range(STEPS):
        pull = k @ log_y.exp()
        log_y = (log_p + pull).log_softmax(1)
        y = log_y.exp()
        value = (y * (log_y - log_p - pull)).sum().item()
        if step > 1 and abs(value - last) <= TOLERANCE * abs(last):
            break
        last = value
    return log_y


class LAME(Adaptation):
    """kind: of affinity. neighbors: how many. floor: see above."""

    paper = "Boudiaf et al., CVPR 2022, arXiv 2201.05718"

    def __init__(
        self, model: nn.Module, kind: Literal["rbf", "knn", "linear"], neighbors: Count, floor: NonNegative
    ) -> None:
        super().__init__(model)
        self.kind, self.neighbors, self.floor = kind, neighbors, floor

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        features = self.model.features(images)
        self.tally(forward_samples=len(images))
        log_p = log_softmax(self.model.logits(features))
        return adjusted(log_p, affinity(features.to(log_p.dtype), self.kind, self.neighbors), self.floor)
