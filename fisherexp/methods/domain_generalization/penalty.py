"""How a penalty joins the loss: its weight over time, and the conventions in which published codes differ."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from fisherexp.config.types import NonNegative, Size

# For methods without a penalty.
UNUSED = ("weight", "before", "anneal", "over", "detach_center", "terms", "reset_optimizer", "rescale")
L2_ALONE = {f"penalty.{option}": "there is no penalty" for option in UNUSED}


@dataclass(frozen=True)
class Penalty:
    """weight: of the penalty after `anneal` steps; `before` until then.
    over: sum or mean over the training domains.
    detach_center: no gradient through the mean that domains are compared with.
    terms: in a penalty of two terms, their weights are the method's own (alpha and beta), or equal and 1.
    reset_optimizer: a new optimizer state when the weight changes.
    rescale: divide the whole loss by the weight where it is above 1, which keeps float32 and Adam at ease.
    l2: weight of the sum of all squared parameters in the loss.
    """

    counts_with: ClassVar[dict[str, dict[str, Any]]] = {
        "weight": {"anneal": 0},
        "before": {"anneal": 2},
        "anneal": {"before": 1.0, "weight": 5.0, "anneal": 1},
        "over": {"before": 5.0, "weight": 5.0},
        "detach_center": {"before": 5.0, "weight": 5.0},
        "terms": {"before": 5.0, "weight": 5.0},
        "reset_optimizer": {"anneal": 1},
        "rescale": {"before": 5.0, "weight": 5.0},
    }

    weight: NonNegative = 1.0
    before: NonNegative = 1.0
    anneal: Size = 0
    over: Literal["sum", "mean"] = "mean"
    detach_center: bool = True
    terms: Literal["own", "equal"] = "own"
    reset_optimizer: bool = True
    rescale: bool = False
    l2: NonNegative = 0.0

    def weight_at(self, step: int) -> float:
        """Weight of the penalty in optimizer step `step`, counted from 0."""
        return self.before if step < self.anneal else self.weight

    def joined(self, risk: Tensor, penalty: Tensor | None, model: nn.Module, step: int) -> Tensor:
        """The loss of a step, a scalar. penalty: None for none, which leaves its weight without effect."""
        loss = risk
        if self.l2:
            loss = loss + self.l2 * sum(p.square().sum() for p in model.parameters())
        if penalty is None:
            return loss
        weight = self.weight_at(step)
        loss = loss + weight * penalty
        return loss / weight if self.rescale and weight > 1 else loss
