"""Gradient boosting, seen as a smoother: from no parameters at all towards ever more.

    S ← S + learning rate · (mean over x's leaf of (I - S on the training set))

Curth, Jeffares, van der Schaar, arXiv 2402.01502. Boosting is scikit-learn's, with squared error and from zero, without
which it is no smoother.
"""

from collections.abc import Iterator

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor

from fisherexp.config.types import Count, Positive
from fisherexp.methods.statistics.forest_smoothers import EnsembleMetrics, metrics_by_trees
from fisherexp.methods.statistics.smoother import Smoother
from fisherexp.seeds import derive


class BoostingSmoother(Smoother):
    """A step is a tree. trees: how many. learning_rate: share of each that is added. max_depth: of a tree.

    Of classes it takes two only: more are several outcomes, which this boosting has not.
    """

    paper = "Friedman 2001; as a smoother: Curth, Jeffares, van der Schaar, arXiv 2402.01502"

    def __init__(self, trees: Count = 100, learning_rate: Positive = 0.05, max_depth: Count = 5) -> None:
        super().__init__()
        self.trees, self.learning_rate, self.max_depth = trees, learning_rate, max_depth

    @property
    def sizes(self) -> int:
        return self.trees

    def fit(self, inputs: np.ndarray, outcomes: np.ndarray, seed: int) -> GradientBoostingRegressor:
        if outcomes.ndim > 1:
            raise ValueError(f"boosting_smoother takes one outcome or two classes, not {outcomes.shape[1]}")
        model = GradientBoostingRegressor(
            n_estimators=self.trees,
            learning_rate=self.learning_rate,
            max_depth=self.max_depth,
            init="zero",
            random_state=derive("boosting", seed),
        )
        return model.fit(inputs, outcomes)

    def curves(
        self, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
    ) -> Iterator[EnsembleMetrics]:
        return metrics_by_trees(self.fitted, *train, *test)
