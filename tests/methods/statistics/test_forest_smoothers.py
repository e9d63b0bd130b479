"""Smoother matrices against the ensembles' own predictions, closed forms, and the paper's claims at its size."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor, RandomForestClassifier
from sklearn.ensemble import RandomForestRegressor as Forest
from sklearn.tree import DecisionTreeRegressor

from fisherexp.data.mars import mars_add, noisy, offset_inputs, uniform_inputs
from fisherexp.methods.statistics.forest_smoothers import (
    boosting_smoothers,
    covariance_degrees_of_freedom,
    decompose_error,
    effective_parameters,
    forest_smoothers,
    leaf_means,
    linear_smoother,
    metrics_by_trees,
    neighbor_smoother,
    noise_variance,
    tree_smoother,
)


def regression(count=60, seed=0, test=25):
    draw = torch.Generator().manual_seed(seed)
    inputs = uniform_inputs(count + test, draw)
    outcomes = noisy(mars_add(inputs), 1.0, draw)
    return [part.numpy() for part in (inputs[:count], outcomes[:count], inputs[count:], outcomes[count:])]


TRAIN, OUTCOMES, TEST, TEST_OUTCOMES = regression()


def last(smoothers):
    *_, whole = smoothers
    return whole


@pytest.mark.parametrize(
    "forest",
    [
        Forest(7, random_state=0),
        Forest(7, bootstrap=False, max_features=0.4, random_state=0),
        Forest(7, max_samples=0.5, max_leaf_nodes=9, random_state=0),
        Forest(7, criterion="poisson", max_depth=3, random_state=0),
        ExtraTreesRegressor(7, min_samples_leaf=4, random_state=0),
    ],
    ids=["bootstrap", "random features", "subsamples", "poisson", "extra trees"],
)
@pytest.mark.parametrize("inputs", [TRAIN, TEST], ids=["train", "test"])
def test_forest_is_its_smoother(forest, inputs):
    forest.fit(TRAIN, OUTCOMES)
    steps = list(forest_smoothers(forest, TRAIN, inputs))
    np.testing.assert_allclose(steps[-1] @ OUTCOMES, forest.predict(inputs), rtol=1e-12)
    np.testing.assert_allclose(steps[-1].sum(1), 1, rtol=1e-12)
    few = np.mean([tree.predict(inputs) for tree in forest.estimators_[:3]], axis=0)
    np.testing.assert_allclose(steps[2] @ OUTCOMES, few, rtol=1e-12)


def test_forest_classifier_is_its_smoother():
    classes = np.greater(OUTCOMES, np.median(OUTCOMES)).astype(int)
    forest = RandomForestClassifier(5, min_samples_leaf=3, random_state=0).fit(TRAIN, classes)
    smoother = last(forest_smoothers(forest, TRAIN, TEST))
    np.testing.assert_allclose(smoother @ np.eye(2)[classes], forest.predict_proba(TEST), rtol=1e-12)


@pytest.mark.parametrize("inputs", [TRAIN, TEST], ids=["train", "test"])
def test_boosting_is_its_smoother_and_its_rows_sum_as_they_must(inputs):
    model = GradientBoostingRegressor(init="zero", n_estimators=30, learning_rate=0.1, max_leaf_nodes=6, random_state=0)
    model.fit(TRAIN, OUTCOMES)
    staged = list(model.staged_predict(inputs))
    for trees, smoother in enumerate(boosting_smoothers(model, TRAIN, inputs), 1):
        np.testing.assert_allclose(smoother @ OUTCOMES, staged[trees - 1], rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(smoother.sum(1), 1 - 0.9**trees, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": None}, "init=None: boosting is a smoother with init='zero' only"),
        ({"init": "zero", "subsample": 0.5}, r"subsample=0\.5"),
        ({"init": "zero", "loss": "huber"}, "loss='huber'"),
    ],
)
def test_boosting_that_is_no_smoother_is_refused(options, message):
    model = GradientBoostingRegressor(n_estimators=2, **options).fit(TRAIN, OUTCOMES)
    with pytest.raises(ValueError, match=message):
        next(boosting_smoothers(model, TRAIN, TEST))


def test_medians_are_refused():
    forest = Forest(2, criterion="absolute_error", random_state=0).fit(TRAIN, OUTCOMES)
    with pytest.raises(ValueError, match="leaves predict medians"):
        next(forest_smoothers(forest, TRAIN, TEST))


def test_leaf_means_are_a_trees_smoother_applied():
    tree = DecisionTreeRegressor(max_leaf_nodes=7, random_state=0).fit(TRAIN, OUTCOMES)
    weights = np.random.RandomState(0).randint(1, 4, len(TRAIN))
    values = np.random.RandomState(1).randn(len(TRAIN), 3)
    means = leaf_means(tree.apply(TRAIN), tree.apply(TEST), values, weights)
    np.testing.assert_allclose(means, tree_smoother(tree, TRAIN, TEST, weights) @ values, rtol=1e-12)


@pytest.mark.parametrize("leaves", [2, 9, 60])
def test_a_trees_training_parameters_are_its_leaves(leaves):
    tree = DecisionTreeRegressor(max_leaf_nodes=leaves, random_state=0).fit(TRAIN, OUTCOMES)
    assert effective_parameters(tree_smoother(tree, TRAIN, TRAIN)) == pytest.approx(leaves, rel=1e-12)


@pytest.mark.parametrize("neighbors", [1, 4, 60])
def test_neighbors_have_one_parameter_for_each_group(neighbors):
    for inputs in (TRAIN, TEST):
        assert effective_parameters(neighbor_smoother(TRAIN, inputs, neighbors)) == pytest.approx(60 / neighbors)
    assert (neighbor_smoother(TRAIN, TRAIN, 1) == np.eye(60)).all()


def test_least_squares_has_the_trace_of_its_hat_matrix():
    hat = linear_smoother(TRAIN, TRAIN)
    assert effective_parameters(hat) == pytest.approx(6) == pytest.approx(np.trace(hat))
    coefficients = np.linalg.lstsq(np.column_stack([np.ones(60), TRAIN]), OUTCOMES, rcond=None)[0]
    expected = coefficients[0] + TEST @ coefficients[1:]
    np.testing.assert_allclose(linear_smoother(TRAIN, TEST) @ OUTCOMES, expected, rtol=1e-10)


def test_noise_variance_and_degrees_of_freedom_of_a_fixed_smoother_are_those_drawn():
    hat = linear_smoother(TRAIN, TRAIN)
    outcomes = 5 + 2 * np.random.RandomState(0).randn(20_000, 60)
    predictions = outcomes @ hat.T
    assert predictions.var(0).mean() == pytest.approx(noise_variance(hat, 2.0), rel=0.02)
    assert covariance_degrees_of_freedom(outcomes, predictions, 2.0) == pytest.approx(np.trace(hat), rel=0.02)
    unrelated = np.random.RandomState(1).randn(20_000, 60)
    assert abs(covariance_degrees_of_freedom(outcomes, unrelated, 2.0)) < 0.2  # control


def test_decomposition_by_hand():
    parts = decompose_error(np.array([[1.0, 1.0], [0.0, 3.0]]), np.array([1.0, 2.0]))
    assert parts.representation_bias == pytest.approx(0.5)  # errors are ½ and 1
    assert parts.error == pytest.approx(0.75)
    assert parts.excess == pytest.approx(0.25)
    assert parts.model_variability == pytest.approx((1 + 4) / 4)  # the best one's own distance is 0


def test_metrics_are_those_of_the_ensemble():
    forest = Forest(4, random_state=0).fit(TRAIN, OUTCOMES)
    final = last(metrics_by_trees(forest, TRAIN, OUTCOMES, TEST, TEST_OUTCOMES))
    assert final.trees == 4
    assert final.train_error == pytest.approx(np.square(forest.predict(TRAIN) - OUTCOMES).mean())
    assert final.test_error == pytest.approx(np.square(forest.predict(TEST) - TEST_OUTCOMES).mean())
    boosted = GradientBoostingRegressor(init="zero", n_estimators=3).fit(TRAIN, OUTCOMES)
    final = last(metrics_by_trees(boosted, TRAIN, OUTCOMES, TEST, TEST_OUTCOMES))
    assert final.test_error == pytest.approx(np.square(boosted.predict(TEST) - TEST_OUTCOMES).mean())


@pytest.fixture(scope="module", params=range(3))
def mars(request):
    """The paper's MARS-add: 500 training and 500 test points, noise of standard deviation 1."""
    return regression(500, seed=request.param, test=500)


@pytest.mark.proof
def test_forests_smooth_where_inputs_are_new_and_the_more_the_more_random(mars):
    """Full trees without bootstrap copy the training outcomes, n parameters, and average at test points."""
    train, outcomes, test, test_outcomes = mars
    at_fifty = {}
    for features in (0.2, 0.6, 1.0):
        forest = Forest(50, bootstrap=False, max_features=features, random_state=0).fit(train, outcomes)
        steps = list(metrics_by_trees(forest, train, outcomes, test, test_outcomes))
        assert all(step.train_parameters == pytest.approx(500) for step in steps)
        assert all(step.train_error < 1e-20 for step in steps)
        first, tenth, fiftieth = (steps[trees - 1] for trees in (1, 10, 50))
        assert first.test_parameters == pytest.approx(500)
        assert first.test_parameters > tenth.test_parameters > fiftieth.test_parameters
        assert first.test_error > fiftieth.test_error
        if features < 1:  # with all features trees differ by ties alone, and the last 40 average nothing
            assert tenth.test_error > fiftieth.test_error
        at_fifty[features] = fiftieth
    assert at_fifty[0.2].test_parameters < 60 < at_fifty[0.6].test_parameters < 100 < at_fifty[1.0].test_parameters
    assert at_fifty[0.2].test_error < at_fifty[1.0].test_error
    assert at_fifty[0.6].test_error < at_fifty[1.0].test_error


@pytest.mark.proof
def test_smoothing_grows_with_the_distance_from_the_training_set(mars):
    train, outcomes, *_ = mars
    forest = Forest(50, bootstrap=False, max_features=0.2, random_state=0).fit(train, outcomes)
    draw = torch.Generator().manual_seed(0)
    parameters = [
        effective_parameters(last(forest_smoothers(forest, train, offset_inputs(torch.from_numpy(train), by, draw))))
        for by in (0, 0.05, 0.1, 0.2, 0.3)
    ]
    assert parameters[0] == pytest.approx(500)
    assert all(nearer > further for nearer, further in itertools.pairwise(parameters))


@pytest.mark.proof
def test_averaging_lowers_variability_and_representation_bias(mars):
    """Of refits without noise in the outcomes: forests differ less than trees, and the best forest beats any tree."""
    train, _, test, _ = mars
    outcomes, truth = (mars_add(torch.from_numpy(inputs)).numpy() for inputs in (train, test))
    forests = [
        Forest(20, bootstrap=False, max_features=0.6, random_state=seed).fit(train, outcomes) for seed in range(20)
    ]
    forest = decompose_error(np.stack([fitted.predict(test) for fitted in forests]), truth)
    tree = decompose_error(np.stack([fitted.estimators_[0].predict(test) for fitted in forests]), truth)
    assert forest.model_variability < tree.model_variability / 5
    assert forest.representation_bias < tree.representation_bias
