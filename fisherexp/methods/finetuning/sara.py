"""SaRA: the weights that are nearly zero are trained, as a matrix of low rank, and half-way those that still are.

    W' = M ∘ E + (1 - M) ∘ W,   M = 1[|W| < τ],   loss + λ · mean over layers of ‖M ∘ E‖_*
    M ← M ∘ 1[|E| < τ] at a share of the training

Paper: Hu et al., ICLR 2025, arXiv 2409.06633; see fisherexp/adapters/sara.py for how this is the authors' plain
variant. The mean is what their draw of one matrix a step amounts to. Their learning rate is 1e-3 exp(-350 τ).
"""

from typing import Any

from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import NonNegative, Positive, Probability
from fisherexp.methods.finetuning.masked import MaskTuning


class SaRA(MaskTuning):
    """threshold: τ, or None for that below which lies a share `quantile` of each weight's entries. restart: the share;
    1 for never. penalty: λ. Others as for AdapterTuning.

    outcome: also mask_sizes, of the first mask and of the last; trained_numbers are those of the first.
    """

    name = "sara"
    paper = "Hu et al., ICLR 2025, arXiv 2409.06633"
    search = {"finetune.lr": "tag(log, interval(3e-3, 3e-1))", "threshold": "tag(log, interval(5e-4, 5e-2))"}
    counts_with = {
        "targets": {"threshold": 0.05, "exclude": None, "targets": "^head$"},  # which has few weights
        "exclude": {"threshold": 0.05, "exclude": None},
        "by_layer": {"by_layer": {"backbone": {"threshold": 0.02}}},
    }

    def __init__(
        self,
        model: nn.Module,
        restart: Probability,
        penalty: NonNegative,
        threshold: Positive | None = None,
        quantile: Probability | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.own = {"threshold": threshold, "quantile": quantile, "restart": restart}
        self.penalty = penalty

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        return adapters.SaRA(weight, **self.own | {"penalty_weight": self.penalty / self.num_adapters()} | options)

    def merge(self) -> None:
        found = adapters.adapters(self.model)
        last = sum(int(adapter.mask.sum()) for adapter in found)
        self.outcome["mask_sizes"] = {"first": adapters.num_trainable(self.model), "last": last}
        super().merge()
