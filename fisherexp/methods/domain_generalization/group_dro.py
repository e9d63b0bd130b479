"""Group DRO: minimize the worst domain's loss by weights that follow the losses.

Paper: Sagawa, Koh, Hashimoto, Liang, ICLR 2020, arXiv 1911.08731, as in DomainBed (arXiv 2007.01434):

    q_e ← q_e exp(η L_e) / Σ_f q_f exp(η L_f),      L = Σ_e q_e L_e
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import NonNegative
from fisherexp.methods.domain_generalization.base import DomainMethod
from fisherexp.methods.domain_generalization.domain import Domain, losses
from fisherexp.methods.domain_generalization.penalty import L2_ALONE, Penalty
from fisherexp.methods.recipe import Recipe


def updated(weights: Tensor, each: Tensor, eta: float) -> Tensor:
    """The domains' next weights (E,), which sum to 1, from their losses (E,); no gradient passes."""
    return (weights.log() + eta * each.detach()).softmax(dim=0)


class GroupDRO(DomainMethod):
    """eta: step of the weights; 0 keeps them equal. Of `penalty` only l2 has a say."""

    penalizes = False
    without_effect = L2_ALONE
    paper = "Sagawa et al., ICLR 2020, arXiv 1911.08731"

    def __init__(self, model: nn.Module, eta: NonNegative, training: Recipe, penalty: Penalty) -> None:
        super().__init__(model, training, penalty)
        self.eta = eta
        self.weights: Tensor | None = None

    def risk(self, domains: Sequence[Domain]) -> Tensor:
        each = losses(domains)
        before = torch.full_like(each, 1 / len(each)) if self.weights is None else self.weights.to(each)
        self.weights = updated(before.detach(), each, self.eta)
        return self.weights @ each

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["weights"] = self.weights

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.weights = checkpoint["weights"]
