"""Errors of predicted numbers, summed as counts: one update per batch, one synchronization at the end."""

import torch
from torch import Tensor

from fisherexp.metrics.evaluation import Evaluation


class RegressionMetrics(Evaluation):
    """Root mean squared error, mean absolute error and R² = 1 - Σ (y - ŷ)² / Σ (y - ȳ)² of each part it is fed.

    update(part, outputs and targets (B, k)); compute() -> {"<name>_rmse": …, "<name>_mae": …, "<name>_r2": …}.
    """

    def __init__(self, names: tuple[str, ...]):
        super().__init__()
        self.names = names
        shown = {"rmse": "RMSE", "mae": "MAE", "r2": "R²"}
        self.headings = {f"{name}_{key}": f"{name}\n{words}" for name in names for key, words in shown.items()}
        self.better = {key: "higher" if key.endswith("_r2") else "lower" for key in self.headings}
        for state in ("squared", "absolute", "count", "mean", "scatter"):
            self.add_state(state, torch.zeros(len(names), dtype=torch.float64), dist_reduce_fx=None)

    def update(self, part: int, outputs: Tensor, targets: Tensor) -> None:
        wrong, y = (outputs - targets).double().flatten(), targets.double().flatten()
        self.squared[part] += wrong.square().sum()
        self.absolute[part] += wrong.abs().sum()
        # Mean and scatter of the targets, updated so that nothing is lost where their mean is large (Chan et al. 1979).
        before, n = self.count[part].clone(), len(y)
        shift = y.mean() - self.mean[part]
        self.scatter[part] += (y - y.mean()).square().sum() + shift.square() * before * n / (before + n)
        self.mean[part] += shift * n / (before + n)
        self.count[part] += n

    def compute(self) -> dict[str, float]:
        found = {}
        for i, name in enumerate(self.names):
            # Of several ranks every state is a stack, one row each.
            squared, absolute, n, mean, scatter = (
                getattr(self, state).reshape(-1, len(self.names))[:, i]
                for state in ("squared", "absolute", "count", "mean", "scatter")
            )
            total = n.sum()
            spread = scatter.sum() + (n * (mean - (n * mean).sum() / total).square()).sum()
            found[f"{name}_rmse"] = (squared.sum() / total).sqrt().item()
            found[f"{name}_mae"] = (absolute.sum() / total).item()
            found[f"{name}_r2"] = (1 - squared.sum() / spread).item()
        return found
