"""SaRA: the weights that are nearly zero are trained, as a matrix of low rank, and half-way those that still are.

Hu et al., ICLR 2025, arXiv 2409.06633:

    M = 1[|W| < τ],   penalty γ ‖M ∘ E‖_*   (the sum of singular values),   E as in masks.py
    M ← M ∘ 1[|E| < τ] at a share of the training

This is the authors' plain variant ("adamw2"); in their memory-saving one, which their script uses by default, the
penalty has no effect. They draw one matrix for the penalty at each step, of those with a smaller side above 64 and more
than 100 entries in the mask; here the penalty is that of every matrix. Biases and norms, which they train below τ, too,
are not. Their τ is one figure for all weights of one model; of others, `quantile` says which share of entries to train.
"""

import torch
from torch import Tensor

from fisherexp.adapters.masks import Rechosen


def threshold_at(weight: Tensor, quantile: float) -> float:
    """τ with |W| < τ for a share `quantile` of the entries, rounded to whole ones; inf for all of them."""
    count = round(quantile * weight.numel())
    return weight.abs().flatten().kthvalue(count + 1).values.item() if count < weight.numel() else float("inf")


class SaRA(Rechosen):
    """weight: W (m, n). threshold: τ > 0; None for that of `quantile`, a share of the entries. restart: share of all
    steps after which the mask shrinks; 1 for never. penalty_weight: γ.

    Trains as many numbers as |W| < τ, those of the first mask. Raises ValueError where there are none, and unless one
    of τ and quantile is given.
    """

    def __init__(
        self,
        weight: Tensor,
        threshold: float | None = None,
        restart: float = 0.5,
        penalty_weight: float = 0.0,
        quantile: float | None = None,
    ) -> None:
        if (threshold is None) == (quantile is None):
            given = f"threshold={threshold}, quantile={quantile}"
            raise ValueError(f"{given}: give one of the two and null for the other")
        if threshold is None:
            threshold = threshold_at(weight, quantile)
        mask = weight.abs() < threshold
        if not mask.any():
            least = weight.abs().min().item()
            raise ValueError(
                f"threshold={threshold} is not above any |W|, the least of {tuple(weight.shape)}: {least:.1e}"
            )
        super().__init__(weight, mask)
        self.threshold, self.restart, self.penalty_weight = threshold, restart, penalty_weight

    def penalty(self) -> Tensor:
        if not self.penalty_weight:
            return super().penalty()
        return self.penalty_weight * torch.linalg.matrix_norm(self.entries * self.mask, "nuc")

    def num_trainable(self) -> int:
        """Those of the first mask, also of a smaller one later: their values are part of the result."""
        return int((self.mask | self.gone).sum())

    @torch.no_grad()
    def renew(self, weight: Tensor, step: int, total: int) -> None:
        if self.restart < 1 and step + 1 == round(self.restart * total):
            self.rechoose(self.mask & (self.entries.abs() < self.threshold), weight)
