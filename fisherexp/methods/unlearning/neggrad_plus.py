"""NegGrad+: descend on retained samples and ascend on forgotten ones in the same step.

Paper: Kurmanji, Triantafillou, Hayes, Triantafillou, NeurIPS 2023, arXiv 2302.09880 (a baseline there).

    L(θ) = α CE(B_r) - (1 - α) CE(B_f),   B_r ⊂ D_r, B_f ⊂ D_f, means over the batch

α = 1 is fine-tuning, α = 0 gradient ascent. As in the official code each batch goes through the model by itself,
so that batch normalization does not mix the two; an epoch is one pass over D_r, and D_f starts again as often as
needed.
"""

from typing import Any

from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative, Positive, Probability
from fisherexp.data.batch import Batch
from fisherexp.data.composite import SideBySide
from fisherexp.methods.unlearning.batches import retained_with_forgotten
from fisherexp.methods.unlearning.finetune import Finetune


def neggrad_plus(retained: Tensor, forgotten: Tensor, alpha: float) -> Tensor:
    """α · retained - (1 - α) · forgotten, of two mean losses."""
    return alpha * retained - (1 - alpha) * forgotten


class NeggradPlus(Finetune):
    """alpha: weight of the retained loss; the forgotten one has -(1 - alpha)."""

    paper = "Kurmanji et al., NeurIPS 2023, arXiv 2302.09880"
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "retain"
    weighs_samples = True

    def __init__(
        self,
        model: nn.Module,
        alpha: Probability,
        epochs: Count,
        lr: Positive,
        momentum: Probability,
        weight_decay: NonNegative,
    ) -> None:
        super().__init__(model, epochs, lr, momentum, weight_decay)
        self.alpha = alpha

    def batches(self, setting: Any) -> SideBySide:
        return retained_with_forgotten(setting)

    def loss(self, batch: Batch) -> Tensor:
        forget = batch.tags["forgotten"]
        retained, forgotten = (super(NeggradPlus, self).loss(batch.select(part)) for part in (~forget, forget))
        return neggrad_plus(retained, forgotten, self.alpha)
