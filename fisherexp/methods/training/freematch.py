"""FreeMatch: FixMatch whose thresholds, one for each class, follow what the model has learned.

    τ ← m τ + (1 - m) mean max p,   p̃ ← m p̃ + (1 - m) mean p,   τ_c = τ p̃_c / max p̃
    u = 1[max p ≥ τ_c] · CE(f(strong(x)), c),  c = argmax p,   and a term of fairness between classes,
    λ_f Σ_c a_c log b_c,   a ∝ p̃ / h̃,   b ∝ q̄ / h̄

with q̄ the mean of softmax f(strong(x)) over the samples above their thresholds, h̄ the shares of its classes there, and
h̃ the moving average of the shares of classes argmax p. Zero where a share is zero.

Wang et al., ICLR 2023, arXiv 2205.07246, with the term's sign as in the paper and its code. As in the paper, averages
begin at 1/C; in the code (USB) they begin at 1.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fisherexp.config.types import NonNegative, Share
from fisherexp.methods.training.semi_supervised import SemiSupervised
from fisherexp.ranks import mean_over_ranks


def fairness(strong: Tensor, used: Tensor, mean_probability: Tensor, histogram: Tensor) -> Tensor:
    """Σ_c a_c log b_c, a scalar, of strong logits (B, C), of which `used` (B,) count, p̃ (C,) and h̃ (C,); 0 for none."""
    if not used.any():
        return strong.sum() * 0
    probabilities = strong[used].softmax(1)
    shares = F.one_hot(probabilities.argmax(1), strong.shape[1]).to(strong.dtype).mean(0)
    wanted = _relative(mean_probability, histogram)
    return (wanted * (_relative(probabilities.mean(0), shares) + 1e-12).log()).sum()


def _relative(probabilities: Tensor, shares: Tensor) -> Tensor:
    """Probabilities divided by shares, made to add up to 1; 0 where the share is."""
    ratio = torch.where(shares > 0, probabilities / shares.clamp_min(torch.finfo(shares.dtype).tiny), 0)
    return ratio / ratio.sum()


class FreeMatch(SemiSupervised):
    """momentum: m. fairness_weight: λ_f. Further options: see SemiSupervised."""

    name = "freematch"
    paper = "Wang et al., ICLR 2023, arXiv 2205.07246"

    def __init__(self, momentum: Share = 0.999, fairness_weight: NonNegative = 0.01, **options: Any) -> None:
        super().__init__(**options)
        self.momentum, self.fairness_weight = momentum, fairness_weight

    def begin(self, num_classes: int) -> None:
        self.register_buffer("threshold", torch.tensor(1 / num_classes))
        self.register_buffer("mean_probability", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("histogram", torch.full((num_classes,), 1 / num_classes))

    def thresholds(self) -> Tensor:
        """τ_c (C,)."""
        return self.threshold * self.mean_probability / self.mean_probability.max()

    def unlabelled_losses(self, probabilities: Tensor, strong: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        confidence, classes = probabilities.max(1)
        shares = F.one_hot(classes, probabilities.shape[1]).to(probabilities.dtype)
        news = {"threshold": confidence, "mean_probability": probabilities, "histogram": shares}
        for name, values in news.items():
            getattr(self, name).lerp_(mean_over_ranks(values.mean(0)), 1 - self.momentum)
        used = confidence >= self.thresholds()[classes]
        losses = used * F.cross_entropy(strong, classes, reduction="none")
        fair = fairness(strong, used, self.mean_probability, self.histogram)
        return losses + self.fairness_weight * fair, used
