"""Nearest neighbors, the smoother that does not adapt: n / k effective parameters on any inputs.

The baseline at equal parameters of Curth, Jeffares, van der Schaar, arXiv 2402.01502.
"""

from collections.abc import Iterator

import numpy as np
from sklearn.neighbors import KNeighborsRegressor

from fisherexp.config.types import Count
from fisherexp.methods.statistics.forest_smoothers import (
    EnsembleMetrics,
    effective_parameters,
    neighbor_smoother,
)
from fisherexp.methods.statistics.smoother import Smoother


class NeighborSmoother(Smoother):
    """A step is one neighbor more, up to `neighbors`; with that many it predicts. On training inputs a sample is its
    own nearest neighbor."""

    paper = "Fix, Hodges 1951; as a smoother: Curth, Jeffares, van der Schaar, arXiv 2402.01502"
    size = "neighbors"

    def __init__(self, neighbors: Count = 10) -> None:
        super().__init__()
        self.neighbors = neighbors

    @property
    def sizes(self) -> int:
        return self.neighbors

    def fit(self, inputs: np.ndarray, outcomes: np.ndarray, seed: int) -> KNeighborsRegressor:
        if self.neighbors > len(inputs):
            raise ValueError(f"method.neighbors={self.neighbors}: there are only {len(inputs)} training samples")
        return KNeighborsRegressor(self.neighbors).fit(inputs, outcomes)

    def curves(
        self, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
    ) -> Iterator[EnsembleMetrics]:
        for k in range(1, self.neighbors + 1):
            parameters, errors = [], []
            for inputs, outcomes in (train, test):
                smoother = neighbor_smoother(train[0], inputs, k)
                parameters.append(effective_parameters(smoother))
                errors.append(float(np.square(smoother @ train[1] - outcomes).mean()))
            yield EnsembleMetrics(k, *parameters, *errors)
