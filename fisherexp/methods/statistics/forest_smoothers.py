"""Trees, forests and boosting as smoothers: their predictions are S y with weights S that adapt to the inputs.

    tree      s_j(x) = w_j 1{leaf(x) = leaf(x_j)} / Σ_i w_i 1{leaf(x) = leaf(x_i)}    w: bootstrap counts, or ones
    forest    S = mean over trees
    boosting  S ← S + learning rate · (mean over x's leaf of (I - S on the training set))

    effective parameters on inputs I:  (n / |I|) Σ_{x in I} ‖s(x)‖²

Curth, Jeffares, van der Schaar: Why do Random Forests Work? Understanding Tree Ensembles as Self-Regularizing Adaptive
Smoothers (2024, arXiv 2402.01502). A forest smooths more the less an input resembles the training set.

Differences from the authors' code (AliciaCurth/understanding-random-forests), none of which changes a number:
bootstrap counts come from scikit-learn's public `estimators_samples_` instead of private helpers; a forest's sum is
divided by the number of trees instead of its row sums, which are equal; leaf means stand for n × n comparisons.

Inputs and outcomes are arrays or CPU tensors, smoothers float64 arrays (m, n): dense, so that n is a few thousand.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.ensemble import BaseEnsemble, GradientBoostingRegressor
from sklearn.neighbors import NearestNeighbors
from sklearn.tree import BaseDecisionTree

MEDIANS = "absolute_error"  # the criterion whose leaves predict medians: no weights S


def leaf_means(train_leaves: np.ndarray, leaves: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For each of m inputs, the weighted mean of `values` (n, k) over the training samples in its leaf: (m, k).

    train_leaves: (n,), leaves: (m,) numbers of leaves. weights: (n,) ≥ 0.
    """
    known, train_places = np.unique(train_leaves, return_inverse=True)
    sums, totals = np.zeros((len(known), values.shape[1])), np.zeros(len(known))
    np.add.at(sums, train_places, weights[:, None] * values)
    np.add.at(totals, train_places, weights)
    places = np.searchsorted(known, leaves)
    return sums[places] / totals[places, None]


def tree_smoother(
    tree: BaseDecisionTree, train_inputs: ArrayLike, inputs: ArrayLike, weights: np.ndarray | None = None
) -> np.ndarray:
    """S (m, n) of a fitted tree. weights: (n,) how often each sample was in its training set; once by default."""
    train_leaves, leaves = tree.apply(np.asarray(train_inputs)), tree.apply(np.asarray(inputs))
    same = (leaves[:, None] == train_leaves) * (1.0 if weights is None else weights)
    return same / same.sum(1, keepdims=True)


def forest_smoothers(forest: BaseEnsemble, train_inputs: ArrayLike, inputs: ArrayLike) -> Iterator[np.ndarray]:
    """S (m, n) of the first tree, of the first two, … of the whole fitted forest.

    S @ y is what the forest predicts (a classifier: S @ one-hot, its probabilities), provided that it was fitted to
    `train_inputs` and y without sample weights. Raises ValueError for a forest of medians.
    """
    if forest.criterion == MEDIANS:
        raise ValueError(f"criterion='{MEDIANS}': leaves predict medians, which no smoother gives; use squared_error")
    count, total = len(train_inputs), 0.0
    for number, (tree, samples) in enumerate(zip(forest.estimators_, forest.estimators_samples_, strict=True), 1):
        weights = np.bincount(samples, minlength=count)
        total = total + tree_smoother(tree, train_inputs, inputs, weights)
        yield total / number


def boosting_smoothers(
    model: GradientBoostingRegressor, train_inputs: ArrayLike, inputs: ArrayLike
) -> Iterator[np.ndarray]:
    """S (m, n) after the first, second, … tree of fitted gradient boosting.

    Rows sum to 1 - (1 - learning rate)^trees, and S @ y is the prediction. Raises ValueError unless the model has
    squared error, init 'zero' and no subsampling: everything else is not of this form.
    """
    wanted = {"loss": "squared_error", "init": "zero", "subsample": 1.0}
    for name, value in wanted.items():
        if getattr(model, name) != value:
            raise ValueError(f"{name}={getattr(model, name)!r}: boosting is a smoother with {name}={value!r} only")
    train_inputs, inputs = np.asarray(train_inputs), np.asarray(inputs)
    count = len(train_inputs)
    ones, identity = np.ones(count), np.eye(count)
    on_train, total = np.zeros((count, count)), np.zeros((len(inputs), count))
    for (tree,) in model.estimators_:
        train_leaves = tree.apply(train_inputs)
        unexplained = identity - on_train
        total = total + model.learning_rate * leaf_means(train_leaves, tree.apply(inputs), unexplained, ones)
        on_train = on_train + model.learning_rate * leaf_means(train_leaves, train_leaves, unexplained, ones)
        yield total


def neighbor_smoother(train_inputs: ArrayLike, inputs: ArrayLike, neighbors: int) -> np.ndarray:
    """S (m, n) of the mean over nearest neighbors: n / neighbors effective parameters on any inputs."""
    train_inputs = np.asarray(train_inputs)
    nearest = NearestNeighbors(n_neighbors=neighbors).fit(train_inputs)
    return nearest.kneighbors_graph(np.asarray(inputs)).toarray() / neighbors


def linear_smoother(train_inputs: ArrayLike, inputs: ArrayLike) -> np.ndarray:
    """S (m, n) of least squares with an intercept; on the training set the hat matrix."""
    train, test = (np.column_stack([np.ones(len(x)), np.asarray(x)]) for x in (train_inputs, inputs))
    return test @ np.linalg.pinv(train)


def effective_parameters(smoother: np.ndarray) -> float:
    """n times the mean squared norm of the rows of S (m, n): 1 for the overall mean, n for copying single outcomes."""
    return float(smoother.shape[1] * np.square(smoother).sum(1).mean())


def noise_variance(smoother: np.ndarray, sigma: float) -> float:
    """Mean variance that outcomes' noise of standard deviation sigma gives predictions S y, S held fixed."""
    return sigma**2 * effective_parameters(smoother) / smoother.shape[1]


def covariance_degrees_of_freedom(outcomes: np.ndarray, predictions: np.ndarray, sigma: float) -> float:
    """Σ_i Cov(y_i, ŷ_i) / σ² over R refits to outcomes drawn anew at the same inputs (Efron 1986).

    outcomes, predictions: (R, n). Unlike the trace of S this counts that S itself depends on y.
    """
    deviations = outcomes - outcomes.mean(0)
    covariances = (deviations * (predictions - predictions.mean(0))).sum(0) / (len(outcomes) - 1)
    return float(covariances.sum() / sigma**2)


class ErrorDecomposition(NamedTuple):
    """Errors of R refits that differ in their random draws alone. All are mean squares over the test points.

    error: mean over the refits. representation_bias: error of the best of them. excess: error - representation_bias.
    model_variability: mean squared distance of the refits' predictions from the best one's.
    """

    error: float
    representation_bias: float
    model_variability: float
    excess: float


def decompose_error(predictions: np.ndarray, outcomes: np.ndarray) -> ErrorDecomposition:
    """predictions: (R, m) of R refits at m test points. outcomes: (m,); the paper takes them without noise."""
    errors = np.square(predictions - outcomes).mean(1)
    best = int(errors.argmin())
    variability = float(np.square(predictions - predictions[best]).mean())
    error, bias = float(errors.mean()), float(errors[best])
    return ErrorDecomposition(error, bias, variability, error - bias)


class EnsembleMetrics(NamedTuple):
    """How an ensemble of `trees` trees smooths and errs: effective parameters, and mean squared errors."""

    trees: int
    train_parameters: float
    test_parameters: float
    train_error: float
    test_error: float


def metrics_by_trees(
    model: BaseEnsemble,
    train_inputs: ArrayLike,
    train_outcomes: ArrayLike,
    test_inputs: ArrayLike,
    test_outcomes: ArrayLike,
) -> Iterator[EnsembleMetrics]:
    """Metrics after each tree of an ensemble fitted to the training set. Two classes: outcomes are -½ and ½."""
    smoothers = boosting_smoothers if isinstance(model, GradientBoostingRegressor) else forest_smoothers
    train_outcomes, test_outcomes = np.asarray(train_outcomes), np.asarray(test_outcomes)
    on_train, on_test = (smoothers(model, train_inputs, inputs) for inputs in (train_inputs, test_inputs))
    for trees, (train, test) in enumerate(zip(on_train, on_test, strict=True), 1):
        yield EnsembleMetrics(
            trees,
            effective_parameters(train),
            effective_parameters(test),
            float(np.square(train @ train_outcomes - train_outcomes).mean()),
            float(np.square(test @ train_outcomes - test_outcomes).mean()),
        )
