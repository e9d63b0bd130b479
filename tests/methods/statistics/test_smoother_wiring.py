"""What the smoothers make of their options: predictions of scikit-learn's own estimators with the same ones."""

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.neighbors import KNeighborsRegressor

from fisherexp.methods.statistics.boosting_smoother import BoostingSmoother
from fisherexp.methods.statistics.forest_smoother import ForestSmoother
from fisherexp.methods.statistics.neighbor_smoother import NeighborSmoother
from fisherexp.seeds import derive

DRAWN = np.random.default_rng(0)
INPUTS, TEST = DRAWN.normal(size=(60, 4)), DRAWN.normal(size=(9, 4))
OUTCOMES = INPUTS[:, 0] * INPUTS[:, 1] + DRAWN.normal(size=60)


def boosting(seed, trees, learning_rate, max_depth):
    options = {"n_estimators": trees, "learning_rate": learning_rate, "max_depth": max_depth}
    return GradientBoostingRegressor(init="zero", random_state=derive("boosting", seed), **options)


def forest(seed, trees, **options):
    return RandomForestRegressor(trees, random_state=derive("forest", seed), **options)


BOOSTED = {"trees": 4, "learning_rate": 0.3, "max_depth": 2}
GROWN = {"trees": 4, "max_features": 0.5, "max_leaf_nodes": None, "bootstrap": False}
CASES = [
    (BoostingSmoother, boosting, BOOSTED, [{}, {"trees": 5}, {"learning_rate": 0.1}, {"max_depth": 4}]),
    (
        ForestSmoother,
        forest,
        GROWN,
        [{}, {"trees": 5}, {"max_features": 1.0}, {"max_leaf_nodes": 4}, {"bootstrap": True}],
    ),
]


@pytest.mark.parametrize(("cls", "plain", "options", "changes"), CASES, ids=["boosting", "forest"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_option_reaches_the_estimator(cls, plain, options, changes, seed):
    found = []
    for change in changes:
        given = options | change
        found.append(cls(**given).fit(INPUTS, OUTCOMES, seed).predict(TEST))
        np.testing.assert_allclose(found[-1], plain(seed, **given).fit(INPUTS, OUTCOMES).predict(TEST))
    assert all(not np.allclose(one, other) for n, one in enumerate(found) for other in found[:n])


def test_the_curve_of_neighbors_is_of_one_more_at_each_step():
    """Errors of scikit-learn's own regressors; k neighbors of n samples leave n / k parameters."""
    truth = TEST[:, 0]
    for k, found in enumerate(NeighborSmoother(3).curves((INPUTS, OUTCOMES), (TEST, truth)), start=1):
        model = KNeighborsRegressor(k).fit(INPUTS, OUTCOMES)
        errors = [np.square(model.predict(x) - y).mean() for x, y in ((INPUTS, OUTCOMES), (TEST, truth))]
        np.testing.assert_allclose(found, [k, 60 / k, 60 / k, *errors], atol=1e-12)
    assert k == 3
