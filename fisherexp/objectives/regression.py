"""Numbers for each sample."""

from typing import Literal

from torch import Tensor

from fisherexp.metrics.regression import RegressionMetrics
from fisherexp.objectives.objective import Objective, reduced


class Regression(Objective):
    """Half the squared error of outputs and numbers (B, k), summed over k; evaluated by RMSE, MAE and R².

    This is minus the log-likelihood of unit variance, up to a constant, as in the curvature engine. Raises ValueError
    for targets of another shape: (B,) beside outputs (B, 1) would be compared all with all.
    """

    likelihood = "gaussian"

    def __init__(self, outputs: int = 1) -> None:
        """outputs: k."""
        self.outputs = outputs

    def loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        reduction: Literal["mean", "sum"] = "mean",
        weights: Tensor | None = None,
    ) -> Tensor:
        each = self.sample_losses(outputs, targets)
        if weights is not None:
            return reduced(each, weights, reduction)
        return each.mean() if reduction == "mean" else each.sum()

    def sample_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.shape != targets.shape:
            raise ValueError(f"targets {tuple(targets.shape)} must have the shape of outputs {tuple(outputs.shape)}")
        return (outputs - targets).square().flatten(1).sum(1) / 2

    def metrics(self, names: tuple[str, ...], held_out: str | None = None) -> RegressionMetrics:
        return RegressionMetrics(names, self.outputs)
