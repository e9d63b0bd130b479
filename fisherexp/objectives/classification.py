"""One class for each sample."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from fisherexp.metrics.calibration import CalibrationMetrics
from fisherexp.objectives.objective import Objective, reduced


class Classification(Objective):
    """Softmax cross-entropy of logits (B, C) with classes (B,). Evaluated by accuracy, likelihood and calibration."""

    likelihood = "cross_entropy"

    def loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        reduction: Literal["mean", "sum"] = "mean",
        weights: Tensor | None = None,
    ) -> Tensor:
        if weights is not None:
            return reduced(self.sample_losses(outputs, targets), weights, reduction)
        return F.cross_entropy(outputs, targets, reduction=reduction)

    def sample_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none")

    def metrics(self, names: tuple[str, ...], held_out: str | None = None) -> CalibrationMetrics:
        return CalibrationMetrics(names, held_out)
