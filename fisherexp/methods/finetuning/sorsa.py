"""SORSA: the leading singular triplets of the weights are trained, their vectors held orthonormal by a penalty.

    W' = (W - U_r diag(s_r) V_rᵀ) + P diag(λ) Q,   P, λ, Q = U_r, s_r, V_rᵀ at the start
    loss + ω · mean over all P and Q of ‖PᵀP - I‖_F, ‖QQᵀ - I‖_F

Paper: Cao and Song, arXiv 2409.00055; see fisherexp/adapters/sorsa.py. There the penalty has a learning rate of its
own: θ ← θ - η ∇L - γ ∇R, hence ω = γ / η; the authors' code adds γ / η · R to the loss, behind the clipping of
gradients. With the 64 accumulated batches of their script, whose trainer divides by them, ω is 0.21 instead of 13.3.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import Count, NonNegative, Positive
from fisherexp.methods.finetuning.finetuning import AdapterTuning


class SORSA(AdapterTuning):
    """rank: r. alpha: α, of the scale α / r; null for none. penalty: ω. Others as for AdapterTuning.

    outcome: under "metrics" also how far the triplets have gone, means over all: value_drift, the change of λ times its
        scale; vector_drift, 1 - |cos(p, u) cos(q, v)| between trained vectors p, q and those of the start, u, v.
    """

    name = "sorsa"
    paper = "Cao and Song, 2024, arXiv 2409.00055"
    search = {"finetune.lr": "tag(log, interval(1e-3, 1e-1))", "penalty": "tag(log, interval(1e-2, 1e2))"}
    counts_with = {"alpha": {"alpha": 8.0}}

    def __init__(
        self, model: nn.Module, rank: Count, penalty: NonNegative, alpha: Positive | None = None, **options: Any
    ) -> None:
        super().__init__(model, **options)
        self.rank, self.penalty, self.alpha = rank, penalty, alpha

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        own = {"rank": self.rank, "alpha": self.alpha, "penalty_weight": self.penalty / (2 * self.num_adapters())}
        return adapters.SORSA(weight, **own | options)

    def merge(self) -> None:
        drifts = zip(*(adapter.drift() for adapter in adapters.adapters(self.model)), strict=True)
        values, vectors = (torch.cat(drift).mean().item() for drift in drifts)
        self.outcome["metrics"] |= {"value_drift": values, "vector_drift": vectors}
        super().merge()
