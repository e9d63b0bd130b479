"""What the multinomial lasso is compared with: a ridge, and a random forest, as scikit-learn has them.

    ridge    min over W, b:  -Σ log softmax(x_n W + b)[y_n] + ‖W‖² / 2C, C by cross-validation on the lasso's folds
    forest   the mean of trees' class frequencies (Breiman 2001); nothing is chosen

Inputs of the ridge are standardized by the rows that a fold fits to. Nothing is filtered: neither minds collinear
features.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from fisherexp.config.types import Count
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.statistics.multinomial_path import folds
from fisherexp.methods.statistics.training_rows import training_rows
from fisherexp.problems.supervised import Supervised
from fisherexp.seeds import derive

LEAST = 1e-12  # probability: a forest may give none to a class


class LibraryClassifier(IterativeMethod):
    """A step is the cross-validation of one candidate: of a strength of the ridge, or of the forest.

    estimator: ridge or forest. strengths: of the ridge, how many from C = 1e-4 to 1e4. trees: of the forest. folds,
    groups: see MultinomialLasso.

    Metrics besides those of the data: deviance of the folds, and the accuracy of the most frequent class. features.png
    and .pdf show the features that count most: by the norm of their standardized coefficients, or by the decrease of
    impurity.
    """

    name = "library_classifier"
    paper = "scikit-learn; random forests: Breiman 2001"
    scenarios = ("plain",)
    requires = ("floats", "class_labels")
    headings = {"fold_deviance": "deviance\nof folds", "majority_accuracy": "most frequent\nclass %"}
    better = {"fold_deviance": "lower"}
    counts_with = {"trees": {"estimator": "forest"}, "groups": {"groups": "magnesium"}}

    problem: Supervised

    def __init__(
        self,
        estimator: Literal["ridge", "forest"] = "ridge",
        strengths: Count = 9,
        trees: Count = 200,
        folds: Count = 5,
        groups: str | None = None,
    ) -> None:
        super().__init__()
        self.estimator, self.strengths, self.trees, self.folds, self.groups = estimator, strengths, trees, folds, groups

    def begin(self, problem: Supervised, seed: int) -> None:
        super().begin(problem, seed)
        self.rows = training_rows(problem, self.groups)
        if self.folds < 2 or self.folds > len(self.rows.labels):
            raise ValueError(f"method.folds={self.folds}: 2 to {len(self.rows.labels)} are expected")
        draw = np.random.default_rng(derive("folds", seed))
        self.fold = folds(self.rows.labels, self.rows.groups, self.folds, draw)
        if self.estimator == "ridge":
            self.candidates = [ridge(c) for c in np.geomspace(1e-4, 1e4, self.strengths)]
        else:
            self.candidates = [RandomForestClassifier(self.trees, random_state=derive("forest", seed))]
        self.deviances: list[float] = []

    @property
    def done(self) -> bool:
        return len(self.deviances) == len(self.candidates)

    def step(self) -> dict[str, float]:
        model, found = self.candidates[len(self.deviances)], []
        for number in range(self.folds):
            apart = self.fold == number
            model.fit(self.rows.columns[~apart], self.rows.labels[~apart])
            logs = log_probabilities(model, self.rows.columns[apart], self.problem.data.num_classes)
            found.append(float(-logs[np.arange(len(logs)), self.rows.labels[apart]].mean()))
        self.deviances.append(float(np.mean(found)))
        self._finish()
        return {"fold_deviance": self.deviances[-1]}

    def _finish(self) -> None:
        if self.done:
            self.model = self.candidates[int(np.argmin(self.deviances))]
            self.model.fit(self.rows.columns, self.rows.labels)

    def state_dict(self) -> dict[str, Any]:
        return {"deviances": self.deviances}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.deviances = state["deviances"]
        self._finish()

    def solution(self) -> Any:
        """A function from inputs (B, …) to the log-probabilities that the objective evaluates."""

        def outputs(inputs: Tensor) -> Tensor:
            columns = inputs.flatten(1).double().numpy()[:, self.rows.places]
            return torch.from_numpy(log_probabilities(self.model, columns, self.problem.data.num_classes)).float()

        return outputs

    def metrics(self) -> dict[str, float]:
        test = self.problem.setting.parts["test"].targets
        most_frequent = int(np.bincount(self.rows.labels).argmax())
        return {
            "fold_deviance": min(self.deviances),
            "majority_accuracy": 100 * float((test == most_frequent).double().mean()),
        }

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.statistics.feature_figure import draw

        if self.estimator == "ridge":
            weight, label = np.linalg.norm(self.model[-1].coef_, axis=0), "norm of the coefficients"
        else:
            weight, label = self.model.feature_importances_, "share of the decrease of impurity"
        draw(self.rows.names, weight, label, folder / "features")


def ridge(strength: float) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))


def log_probabilities(model: Any, columns: np.ndarray, classes: int) -> np.ndarray:
    """(n, classes); of a class that the model was not fitted to log 1e-12."""
    found = np.zeros((len(columns), classes))
    found[:, model.classes_] = model.predict_proba(columns)
    return np.log(np.maximum(found, LEAST))
