"""LoRA held by EWC: low-rank updates with a quadratic penalty on each entry of the update, weighted by the Fisher.

    L = L_t + λ/2 Σ_layers Σ_ij F_ij ΔW_ij²

Baseline of AlignGuard-LoRA (arXiv 2508.02079). F is the running Fisher of online EWC (arXiv 1805.06370); ΔW is the
distance from its anchor, since every task begins with new adapters on the weights that the last one left.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative, Positive, Probability
from fisherexp.methods.continual_learning.lora import LoRA, updates
from fisherexp.methods.continual_learning.online_ewc import OnlineEWC
from fisherexp.methods.importance import Importance
from fisherexp.methods.recipe import Recipe


class LoRAEWC(LoRA, OnlineEWC):
    """Options as for LoRA and OnlineEWC."""

    name = "lora_ewc"
    paper = "Hu et al., ICLR 2022, arXiv 2106.09685; Schwarz et al., ICML 2018, arXiv 1805.06370"

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        rank: Count,
        alpha: Positive,
        lr: Positive,
        importance: Importance,
        lambda_: NonNegative,
        gamma: Probability,
    ) -> None:
        penalty: dict[str, Any] = {"importance": importance, "lambda_": lambda_, "gamma": gamma}
        super().__init__(model, training, rank, alpha, lr, **penalty)

    def finish_task(self, task: Any) -> None:
        LoRA.finish_task(self, task)
        OnlineEWC.finish_task(self, task)

    def penalty(self) -> Tensor:
        adapted = updates(self.model)
        if not adapted:  # merged
            return super().penalty()
        (anchor,) = self.memory["anchors"]
        terms = [(anchor["omega"][f"{name}.weight"] * sum(found).square()).sum() for name, found in adapted.items()]
        return torch.stack(terms).sum()
