"""Numbers for each sample."""

from typing import Literal

from torch import Tensor

from fisherexp.metrics.regression import RegressionMetrics
from fisherexp.objectives.objective import Objective


class Regression(Objective):
    """Half the squared error of outputs and numbers (B, k), summed over k: minus the log-likelihood of unit variance, as the
    curvature engine has it. Evaluated by root mean squared error and the share of variance explained."""

    likelihood = "gaussian"

    def loss(self, outputs: Tensor, targets: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
        each = self.sample_losses(outputs, targets)
        return each.mean() if reduction == "mean" else each.sum()

    def sample_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().sum(1) / 2

    def metrics(self, names: tuple[str, ...], held_out: str | None = None) -> RegressionMetrics:
        return RegressionMetrics(names)
