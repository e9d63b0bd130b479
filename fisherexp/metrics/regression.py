"""Errors of predicted numbers, summed as counts: one update per batch, one synchronization at the end."""

import torch
from torch import Tensor

from fisherexp.metrics.evaluation import Evaluation


class RegressionMetrics(Evaluation):
    """Root mean squared error, mean absolute error and R² = 1 - Σ (y - ŷ)² / Σ (y - ȳ)² of each part it is fed.

    update(part, outputs (B, k), targets (B, k)); compute() -> {"<name>_rmse": …, "<name>_mae": …, "<name>_r2": …}.
    The sums are over samples and all k numbers of each; every number has a mean ȳ of its own.
    Raises ValueError for other shapes.
    """

    def __init__(self, names: tuple[str, ...], outputs: int = 1):
        """outputs: k."""
        super().__init__()
        self.names, self.outputs = names, outputs
        shown = {"rmse": "RMSE", "mae": "MAE", "r2": "R²"}
        self.headings = {f"{name}_{key}": f"{name}\n{words}" for name in names for key, words in shown.items()}
        self.better = {key: "higher" if key.endswith("_r2") else "lower" for key in self.headings}
        for state in ("squared", "absolute", "count", "mean", "scatter"):
            self.add_state(state, torch.zeros(len(names), outputs, dtype=torch.float64), dist_reduce_fx=None)

    def update(self, part: int, outputs: Tensor, targets: Tensor) -> None:
        if outputs.shape != targets.shape or outputs.shape[1:] != (self.outputs,):
            wanted = f"(B, {self.outputs})"
            raise ValueError(
                f"outputs and targets must be {wanted}, not {tuple(outputs.shape)}, {tuple(targets.shape)}"
            )
        y = targets.double()
        wrong = outputs.double() - y
        self.squared[part] += wrong.square().sum(0)
        self.absolute[part] += wrong.abs().sum(0)
        # Mean and scatter of the targets, updated so that nothing is lost where their mean is large (Chan et al. 1979).
        before, n = self.count[part].clone(), len(y)
        shift = y.mean(0) - self.mean[part]
        self.scatter[part] += (y - y.mean(0)).square().sum(0) + shift.square() * before * n / (before + n)
        self.mean[part] += shift * n / (before + n)
        self.count[part] += n

    def compute(self) -> dict[str, float]:
        found = {}
        for i, name in enumerate(self.names):
            # Of several ranks every state is a stack, one row each.
            squared, absolute, n, mean, scatter = (
                getattr(self, state).reshape(-1, len(self.names), self.outputs)[:, i]
                for state in ("squared", "absolute", "count", "mean", "scatter")
            )
            center = (n * mean).sum(0) / n.sum(0)
            spread = scatter.sum() + (n * (mean - center).square()).sum()
            found[f"{name}_rmse"] = (squared.sum() / n.sum()).sqrt().item()
            found[f"{name}_mae"] = (absolute.sum() / n.sum()).item()
            found[f"{name}_r2"] = (1 - squared.sum() / spread).item()
        return found
