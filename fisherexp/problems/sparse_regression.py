"""Which of many columns matter for an outcome, and how much."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fisherexp.config.locations import user_file
from fisherexp.config.types import Count, NonNegative, Separator
from fisherexp.data.sparse_regression import drawn, numbers
from fisherexp.data.table_files import read_table
from fisherexp.problems.numerical import Numerical


class Columns(NamedTuple):
    """scores: (d,), how much each column matters; zero where it does not. coefficients: (d,), in the units of the data,
    None where a method has none. intercept: beside them. loss: what they predict, the outcome (squared) or the log-odds
    that it is 1 (logistic)."""

    scores: Tensor
    coefficients: Tensor | None = None
    intercept: float = 0.0
    loss: Literal["squared", "logistic"] = "squared"


class Regression(Numerical):
    """A solution is a Columns. Metrics: chosen, how many scores are not zero; fit_rmse of coefficients, on the rows
    themselves, or fit_accuracy in % of those of log-odds. Where the truth is known, recall: the share of true columns
    among as many of the largest scores, in %; support_f1: the F1 score of the coefficients that are not zero, in %;
    coefficient_error: their distance from it.
    """

    provides = ("columns",)
    headings = {
        "recall": "true among\nlargest %",
        "support_f1": "support\nF1 %",
        "coefficient_error": "coefficient\nerror",
        "chosen": "chosen",
        "fit_rmse": "RMSE of\nthe fit",
        "fit_accuracy": "accuracy of\nthe fit %",
    }
    better = {"recall": "higher", "support_f1": "higher", "coefficient_error": "lower"}
    names: list[str] | None = None

    def evaluate(self, solution: Columns) -> dict[str, float]:
        inputs, outcomes = self.instance["inputs"], self.instance["outcomes"]
        found = {"chosen": int((solution.scores != 0).sum())}
        if solution.coefficients is not None:
            predicted = inputs @ solution.coefficients + solution.intercept
            if solution.loss == "logistic":
                found["fit_accuracy"] = 100 * float(((predicted > 0) == (outcomes > 0)).double().mean())
            else:
                found["fit_rmse"] = float((outcomes - predicted).square().mean().sqrt())
        if "coefficients" not in self.instance:
            return found
        truth = self.instance["coefficients"]
        largest = solution.scores.abs().topk(int((truth != 0).sum())).indices
        found["recall"] = 100 * float((truth[largest] != 0).double().mean())
        if solution.coefficients is not None:
            both = ((solution.coefficients != 0) & (truth != 0)).sum()
            either = (solution.coefficients != 0).sum() + (truth != 0).sum()
            found["support_f1"] = 200 * float(both / either)
            found["coefficient_error"] = float((solution.coefficients - truth).norm())
        return found

    def about(self) -> dict[str, Any]:
        rows, columns = self.instance["inputs"].shape
        return {"rows": rows, "columns": columns}


class SparseRegression(Regression):
    """`n` rows of `features` columns, of which `signals` matter, drawn from the run's seed. shape, noise, outcomes: see
    data/sparse_regression.py."""

    title = "sparse_regression"

    def __init__(
        self,
        n: Count = 200,
        features: Count = 500,
        signals: Count = 10,
        noise: NonNegative = 1.0,
        shape: Literal["linear", "square"] = "linear",
        outcomes: Literal["continuous", "binary"] = "continuous",
    ) -> None:
        super().__init__()
        self.n, self.features, self.signals, self.noise, self.shape = n, features, signals, noise, shape
        self.outcomes = outcomes

    def read(self, seed: int) -> Mapping[str, Tensor]:
        return drawn(self.n, self.features, self.signals, self.noise, self.shape, seed, self.outcomes)


class RegressionFile(Regression):
    """Your own table, all columns numbers. path: absolute, or relative to the working directory or the data folder.
    target: the column to explain. separator: between values. root: see LabeledData."""

    title = "regression_file"
    paths = ("path",)

    def __init__(self, path: str, target: str, separator: Separator = ",", root: str | None = None) -> None:
        super().__init__()
        self.path, self.target, self.separator, self.root = path, target, separator, root

    def read(self, seed: int) -> Mapping[str, Tensor]:
        found, self.names = numbers(read_table(user_file(self.path, self.root), self.separator), self.target)
        return found


def standardized(columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Columns (n, d) of mean zero and deviation one, the means and the deviations (1 for constant ones)."""
    middle, spread = columns.mean(0), columns.std(0, correction=0)
    spread = torch.where(spread > 1e-12, spread, 1.0)
    return (columns - middle) / spread, middle, spread
