"""Inflation by regression, the path against scikit-learn and the conditions of an optimum, and true drivers."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from fisherexp.methods.statistics.collinearity import filtered, inflation
from fisherexp.methods.statistics.multinomial_lasso import by_rule
from fisherexp.methods.statistics.multinomial_path import deviance, fitted, folds, largest_penalty, shrunk, slope

DRAW = np.random.default_rng(0)
INPUTS = DRAW.normal(size=(80, 6))
LABELS = (INPUTS[:, :3] + DRAW.gumbel(size=(80, 3))).argmax(1)


def test_inflation_is_that_of_a_regression_on_the_others():
    mixed = INPUTS @ DRAW.normal(size=(6, 6))
    others = [np.delete(mixed, j, axis=1) for j in range(6)]
    fits = [LinearRegression().fit(x, mixed[:, j]).score(x, mixed[:, j]) for j, x in enumerate(others)]
    np.testing.assert_allclose(inflation(np.corrcoef(mixed, rowvar=False)), 1 / (1 - np.array(fits)))
    assert inflation(np.eye(3)).tolist() == pytest.approx([1, 1, 1])


def test_the_filter_removes_copies_sums_and_constants_and_nothing_else():
    table = np.c_[INPUTS, INPUTS[:, 0], INPUTS[:, 1] + INPUTS[:, 2], np.ones(80)]
    kept, removed = filtered(table, 10.0)
    assert removed[0] == (8, np.inf)
    assert len(kept) == 6
    assert {place for place, _ in removed} & {1, 2, 7}
    assert {place for place, _ in removed} & {0, 6} == {6}  # of two equal ones the last
    assert filtered(INPUTS, 10.0) == (list(range(6)), [])


def objective(weights, intercepts, strength):
    fit = fitted(INPUTS, LABELS, 3, 1.0, "lasso", most=0)._replace(weights=weights, intercepts=intercepts)
    return deviance(fit, INPUTS, LABELS) + strength * np.abs(weights).sum()


@pytest.mark.parametrize("strength", [0.02, 0.08])
def test_the_lasso_is_that_of_scikit_learn(strength):
    ours = fitted(INPUTS, LABELS, 3, strength, "lasso", tolerance=1e-9, most=20000)
    theirs = LogisticRegression(C=1 / (80 * strength), l1_ratio=1.0, solver="saga", tol=1e-10, max_iter=20000)
    theirs.fit(INPUTS, LABELS)
    np.testing.assert_allclose(ours.weights, theirs.coef_.T, atol=1e-6)
    np.testing.assert_allclose(ours.intercepts, theirs.intercept_ - theirs.intercept_.mean(), atol=1e-5)
    assert (ours.weights == 0).sum() == (theirs.coef_ == 0).sum() > 0
    found = objective(ours.weights, ours.intercepts, strength)
    assert found <= objective(theirs.coef_.T, theirs.intercept_, strength) + 1e-10


def test_the_grouped_path_meets_its_conditions_and_begins_where_it_says():
    top = largest_penalty(INPUTS, LABELS, 3, "grouped")
    assert not fitted(INPUTS, LABELS, 3, 1.0001 * top, "grouped").weights.any()
    frequencies = np.exp(fitted(INPUTS, LABELS, 3, 1.0001 * top, "grouped").intercepts)
    np.testing.assert_allclose(frequencies / frequencies.sum(), np.bincount(LABELS) / 80, atol=1e-5)
    fit = fitted(INPUTS, LABELS, 3, 0.3 * top, "grouped", tolerance=1e-9)
    gradient, in_intercepts = slope(fit, INPUTS, np.eye(3)[LABELS])
    norms = np.linalg.norm(fit.weights, axis=1, keepdims=True)
    used = norms[:, 0] > 0
    assert 0 < used.sum() < 6
    np.testing.assert_allclose(gradient[used], -0.3 * top * (fit.weights / norms.clip(1e-300))[used], atol=1e-7)
    assert (np.linalg.norm(gradient[~used], axis=1) <= 0.3 * top).all()
    assert np.abs(in_intercepts).max() < 1e-7
    assert fitted(INPUTS, LABELS, 3, 0.99 * top, "grouped").weights.any()  # control


@pytest.mark.parametrize("penalty", ["lasso", "grouped"])
def test_a_large_penalty_leaves_the_frequencies_of_the_classes(penalty):
    top = largest_penalty(INPUTS, LABELS, 3, penalty)
    fit = fitted(INPUTS, LABELS, 3, 1.0001 * top, penalty)
    assert not fit.weights.any()
    frequencies = np.exp(fit.intercepts)
    np.testing.assert_allclose(frequencies / frequencies.sum(), np.bincount(LABELS) / 80, atol=1e-5)
    assert fitted(INPUTS, LABELS, 3, 0.99 * top, penalty).weights.any()  # control


def test_only_the_penalty_says_what_all_classes_share():
    """A number added to a feature's weights of all classes changes no probability: the lasso has the median of them at
    zero, the grouped penalty their mean."""
    lasso, grouped = (fitted(INPUTS, LABELS, 3, 0.02, penalty, tolerance=1e-9) for penalty in ("lasso", "grouped"))
    shifted = lasso._replace(weights=lasso.weights + DRAW.normal(size=(6, 1)))
    assert deviance(shifted, INPUTS, LABELS) == pytest.approx(deviance(lasso, INPUTS, LABELS), rel=1e-12)
    np.testing.assert_allclose(np.median(lasso.weights, axis=1), 0, atol=1e-7)
    np.testing.assert_allclose(grouped.weights.mean(1), 0, atol=1e-7)
    assert np.abs(lasso.weights.mean(1)).max() > 1e-2  # the control
    assert np.abs(np.median(grouped.weights, axis=1)).max() > 1e-2


def test_shrinking_by_hand():
    weights = np.array([[3.0, -4.0], [0.3, 0.4]])
    np.testing.assert_allclose(shrunk(weights, 1.0, "lasso"), [[2, -3], [0, 0]])
    np.testing.assert_allclose(shrunk(weights, 1.0, "grouped"), [[2.4, -3.2], [0, 0]])


def test_folds_keep_groups_together_and_classes_apart():
    groups = np.arange(80) // 4
    found = folds(LABELS, groups, 5, np.random.default_rng(0))
    assert all(len(set(found[groups == group])) == 1 for group in range(20))
    spread = folds(LABELS, None, 5, np.random.default_rng(0))
    counts = np.array([[((spread == fold) & (label == LABELS)).sum() for fold in range(5)] for label in range(3)])
    assert (np.ptp(counts, axis=1) <= 1).all()
    with pytest.raises(ValueError, match=r"method\.folds=30: there are 20 groups"):
        folds(LABELS, groups, 30, np.random.default_rng(0))


def test_the_rule_of_one_standard_error():
    deviances = np.array([[1.0, 1.2], [0.6, 0.7], [0.55, 0.65], [0.9, 0.5]])
    assert (by_rule(deviances, "least"), by_rule(deviances, "one_standard_error")) == (2, 1)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_true_drivers_are_found_among_correlated_features(seed):
    """400 rows, 40 features correlated by 0.5 with their neighbors, 10 of them drive three classes: all are found, and
    they are the ten largest. A null: at one standard error 7 to 16 false ones remain on these seeds, where at most 5
    were hoped for: the penalty that predicts best is not the one that selects best."""
    draw = np.random.default_rng(seed)
    chain = 0.5 ** np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
    inputs = draw.multivariate_normal(np.zeros(40), chain, size=400)
    true = np.arange(0, 40, 4)
    weights = np.zeros((40, 3))
    weights[true, np.arange(10) % 3] = 2.0
    labels = (inputs @ weights + draw.gumbel(size=(400, 3))).argmax(1)
    strengths = largest_penalty(inputs, labels, 3, "grouped") * np.geomspace(1, 0.05, 15)
    fold, deviances = folds(labels, None, 5, draw), []
    for strength in strengths:
        fits = [fitted(inputs[fold != k], labels[fold != k], 3, strength, "grouped") for k in range(5)]
        deviances.append([deviance(fit, inputs[fold == k], labels[fold == k]) for k, fit in enumerate(fits)])
    best = strengths[by_rule(np.array(deviances), "one_standard_error")]
    sizes = np.linalg.norm(fitted(inputs, labels, 3, best, "grouped").weights, axis=1)
    found, largest = set(np.flatnonzero(sizes)), set(np.argsort(-sizes)[:10])
    assert len(found & set(true)) == 10
    assert len(largest & set(true)) >= 9
    assert len(found) < 30
