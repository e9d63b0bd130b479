"""AdaLoRA: low-rank updates as singular triplets, of which all layers share a budget that falls in training.

    W' = W + α / r · P diag(λ) Q,   λ = 0 and P, Q random at the start
    loss + γ · mean over all P and Q of ‖PᵀP - I‖_F, ‖QQᵀ - I‖_F;   b(t) triplets of the highest score keep their λ

Paper: Zhang et al., ICLR 2023, arXiv 2303.10512; score and b(t) in fisherexp/adapters/adalora.py. As in the authors'
code, where the paper squares the norms. peft leaves the penalty out of a model whose outputs have no loss; here it is
in.
"""

from typing import Any

from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import Count, NonNegative, Positive, Probability
from fisherexp.methods.finetuning.finetuning import AdapterTuning

TOGETHER = {"initial", "final", "every"}


class AdaLoRA(AdapterTuning):
    """rank: r at the start. target: mean rank at the end. alpha: α. penalty: γ. initial, final: shares of all steps
    before the budget falls and after. every: steps between allocations. beta1, beta2: of the score. Others as for
    AdapterTuning; initial, final and every are those of all layers.

    outcome: also ranks, how many triplets each layer has kept.
    """

    name = "adalora"
    paper = "Zhang et al., ICLR 2023, arXiv 2303.10512"
    search = {"finetune.lr": "tag(log, interval(1e-3, 1e-1))"}
    counts_with = {
        "beta1": {"beta1": 0.0},
        "beta2": {"target": 1, "beta2": 0.0},
        "by_layer": {"by_layer": {"backbone": {"rank": 7}}},
    }

    def __init__(
        self,
        model: nn.Module,
        rank: Count,
        target: Count,
        alpha: Positive,
        penalty: NonNegative,
        initial: Probability,
        final: Probability,
        every: Count,
        beta1: Probability,
        beta2: Probability,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        if given := sorted({option for own in (self.by_layer or {}).values() for option in own} & TOGETHER):
            raise ValueError(f"method.by_layer: {', '.join(given)} are of all layers together, as their budget is")
        self.penalty = penalty
        self.allocation = {"rank": rank, "target": target, "alpha": alpha, "initial": initial, "final": final}
        self.allocation |= {"every": every, "beta1": beta1, "beta2": beta2}

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        mean = self.penalty / (2 * self.num_adapters())
        return adapters.AdaLoRA(weight, **self.allocation | {"penalty_weight": mean} | options)

    def merge(self) -> None:
        layers = adapters.adapted_layers(self.model)
        self.outcome["ranks"] = {
            name: sum(int(adapter.kept.sum()) for adapter in layer.adapters) for name, layer in layers.items()
        }
        super().merge()
