"""Which features speak for which class: a filter of collinear ones, then a multinomial lasso.

As in Mejia Becerra, Yu: What Benefits Drive Membership in Medicare Advantage Plans?, 2025: variance inflation factors
(collinearity.py), the lasso (multinomial_path.py), 5-fold cross-validation; their threshold is not published, 10 is
the usual one. Their test accuracy is 0.76 on 43 plans of a table that is not public; splits alone move it by 0.1.
Inputs are standardized again by the rows that a fold fits to, which the paper does once before it splits.
"""

import csv
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor

from fisherexp.config.types import Count, Positive
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.memory import announce
from fisherexp.methods.statistics.collinearity import filtered
from fisherexp.methods.statistics.multinomial_path import Fit, deviance, fitted, folds, largest_penalty
from fisherexp.methods.statistics.training_rows import training_rows
from fisherexp.problems.supervised import Supervised
from fisherexp.seeds import derive


class MultinomialLasso(IterativeMethod):
    """A step is a penalty of the path, from the least that leaves no feature down to `smallest` times it.

    penalty: lasso, or grouped, which takes a feature for all classes or none. most_inflation: features of a larger
    variance inflation are removed, the worst first; None keeps all. penalties: how many. folds: of the
    cross-validation. groups: a feature whose equal values mark rows that belong together (the years of a plan): they
    share a fold, and it is no input. rule: the penalty of the least mean deviance of the folds, or the largest one
    within a standard error of it.

    Metrics besides those of the data: features used, kept by the filter, deviance of the folds, and the accuracy of the
    most frequent class. path.png and .pdf show the path; coefficients.csv holds what each feature says of each class.
    """

    name = "multinomial_lasso"
    paper = "Mejia Becerra, Yu, 2025; the grouped lasso: Simon, Friedman, Hastie 2013, arXiv 1311.6529"
    scenarios = ("plain",)
    requires = ("floats", "class_labels")
    headings = {
        "features_used": "features\nused",
        "features_kept": "after\nfilter",
        "fold_deviance": "deviance\nof folds",
        "majority_accuracy": "most frequent\nclass %",
    }
    better = {"fold_deviance": "lower"}
    counts_with = {"groups": {"groups": "magnesium"}, "most_inflation": {"most_inflation": 2.0}}

    problem: Supervised

    def __init__(
        self,
        penalty: Literal["lasso", "grouped"] = "lasso",
        most_inflation: Positive | None = 10.0,
        penalties: Count = 30,
        smallest: Positive = 0.01,
        folds: Count = 5,
        groups: str | None = None,
        rule: Literal["one_standard_error", "least"] = "one_standard_error",
    ) -> None:
        super().__init__()
        self.penalty, self.most_inflation, self.penalties = penalty, most_inflation, penalties
        self.smallest, self.folds, self.groups, self.rule = smallest, folds, groups, rule

    def begin(self, problem: Supervised, seed: int) -> None:
        super().begin(problem, seed)
        rows = training_rows(problem, self.groups)
        self.labels, self.classes, n = rows.labels, problem.data.num_classes, len(rows.labels)
        if self.folds < 2 or self.folds > n:
            raise ValueError(f"method.folds={self.folds}: 2 to {n} are expected")
        if self.smallest >= 1:
            raise ValueError(f"method.smallest={self.smallest}: a share below 1 is expected")
        width = rows.columns.shape[1]
        announce("correlations of features", width, width, copies=3, advice="drop some of them")
        kept, removed = list(range(width)), []
        if self.most_inflation is not None:
            kept, removed = filtered(rows.columns, self.most_inflation)
        self.places, self.names = [rows.places[place] for place in kept], [rows.names[place] for place in kept]
        self.outcome = {"removed": [[rows.names[one.place], min(one.factor, 1e300)] for one in removed]}
        self.columns = rows.columns[:, kept]
        self.middle, self.scale = moments(self.columns)
        draw = np.random.default_rng(derive("folds", seed))
        self.fold = folds(self.labels, rows.groups, self.folds, draw)
        top = largest_penalty(self._standard(self.columns), self.labels, self.classes, self.penalty)
        self.strengths = top * np.geomspace(1, self.smallest, self.penalties)
        self.path: list[Fit] = []
        self.last: list[Fit | None] = [None] * self.folds
        self.deviances: list[list[float]] = []

    def _standard(self, columns: np.ndarray) -> np.ndarray:
        return (columns - self.middle) / self.scale

    @property
    def done(self) -> bool:
        return len(self.path) == self.penalties

    def step(self) -> dict[str, float]:
        strength = self.strengths[len(self.path)]
        given = (self.classes, strength, self.penalty)
        before = self.path[-1] if self.path else None
        self.path.append(fitted(self._standard(self.columns), self.labels, *given, before))
        found = []
        for number in range(self.folds):
            apart = self.fold == number
            middle, scale = moments(self.columns[~apart])
            inputs = (self.columns - middle) / scale
            self.last[number] = fitted(inputs[~apart], self.labels[~apart], *given, self.last[number])
            found.append(deviance(self.last[number], inputs[apart], self.labels[apart]))
        self.deviances.append(found)
        return {"fold_deviance": float(np.mean(found)), "penalty": float(strength), "features_used": self._used(-1)}

    def _used(self, number: int) -> int:
        return int((np.abs(self.path[number].weights) > 0).any(1).sum())

    @property
    def best(self) -> int:
        """Place of the chosen penalty on the path."""
        return by_rule(np.asarray(self.deviances), self.rule)

    def state_dict(self) -> dict[str, Any]:
        pack = lambda fits: [[torch.from_numpy(fit.weights), torch.from_numpy(fit.intercepts)] for fit in fits]  # noqa: E731
        last = pack(self.last) if self.path else []
        return {"path": pack(self.path), "last": last, "deviances": self.deviances}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        unpack = lambda rows: [Fit(weights.numpy(), intercepts.numpy()) for weights, intercepts in rows]  # noqa: E731
        self.path, self.deviances = unpack(state["path"]), state["deviances"]
        self.last = unpack(state["last"]) or self.last

    def solution(self) -> Any:
        """A function from inputs (B, …) to the log-probabilities that the objective evaluates."""
        fit = self.path[self.best]

        def outputs(inputs: Tensor) -> Tensor:
            columns = self._standard(inputs.flatten(1).double().numpy()[:, self.places])
            return torch.from_numpy(log_softmax(columns @ fit.weights + fit.intercepts, axis=1)).float()

        return outputs

    def metrics(self) -> dict[str, float]:
        test = self.problem.setting.parts["test"].targets
        most_frequent = np.bincount(self.labels).argmax()
        return {
            "features_used": self._used(self.best),
            "features_kept": len(self.names),
            "fold_deviance": float(np.mean(self.deviances[self.best])),
            "majority_accuracy": 100 * float((test == int(most_frequent)).double().mean()),
        }

    def tensors(self) -> dict[str, Tensor]:
        fit = self.path[self.best]
        return {"weights": torch.from_numpy(fit.weights.copy()), "intercepts": torch.from_numpy(fit.intercepts.copy())}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.statistics.lasso_figure import draw

        weights = self.path[self.best].weights
        with (folder / "coefficients.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["feature", *self.problem.data.class_names])
            writer.writerows([name, *row.tolist()] for name, row in zip(self.names, weights, strict=True) if row.any())
        draw(self.strengths, np.asarray(self.deviances), [fit.weights for fit in self.path], self.best, folder / "path")


def moments(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of columns (n, d); 1 instead of 0."""
    spread = columns.std(0)
    return columns.mean(0), np.where(spread > 1e-12, spread, 1.0)


def by_rule(deviances: np.ndarray, rule: str) -> int:
    """Place of the chosen penalty. deviances: (penalties, folds), from the largest penalty on."""
    means = deviances.mean(1)
    least = int(means.argmin())
    if rule == "least":
        return least
    error = deviances[least].std(ddof=1) / np.sqrt(deviances.shape[1])
    return int(np.flatnonzero(means <= means[least] + error)[0])
