"""A random forest, seen as a smoother that adapts to its inputs: what each further tree does to it.

Curth, Jeffares, van der Schaar, arXiv 2402.01502: test inputs are smoothed over more than training inputs, most of all
in random forests. Equations: forest_smoothers.py. The forest is scikit-learn's.
"""

from collections.abc import Iterator

import numpy as np
from sklearn.ensemble import RandomForestRegressor

from fisherexp.config.types import Count, Probability
from fisherexp.methods.statistics.forest_smoothers import EnsembleMetrics, metrics_by_trees
from fisherexp.methods.statistics.smoother import Smoother
from fisherexp.seeds import derive


class ForestSmoother(Smoother):
    """A step is a tree.

    trees: how many; one of them without bootstrap is a single tree. max_features: share of the features that a split
    chooses from; below 1 trees differ at random. max_leaf_nodes: leaves of a tree, None for as many as it takes.
    bootstrap: draw each tree's training samples with replacement; the paper does not.
    """

    paper = "Curth, Jeffares, van der Schaar, arXiv 2402.01502"

    def __init__(
        self,
        trees: Count = 50,
        max_features: Probability = 0.6,
        max_leaf_nodes: Count | None = None,
        bootstrap: bool = False,
    ) -> None:
        super().__init__()
        self.trees, self.max_features = trees, max_features
        self.max_leaf_nodes, self.bootstrap = max_leaf_nodes, bootstrap

    @property
    def sizes(self) -> int:
        return self.trees

    def fit(self, inputs: np.ndarray, outcomes: np.ndarray, seed: int) -> RandomForestRegressor:
        forest = RandomForestRegressor(
            self.trees,
            max_features=self.max_features,
            max_leaf_nodes=self.max_leaf_nodes,
            bootstrap=self.bootstrap,
            random_state=derive("forest", seed),
        )
        return forest.fit(inputs, outcomes)

    def curves(
        self, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
    ) -> Iterator[EnsembleMetrics]:
        return metrics_by_trees(self.fitted, *train, *test)
