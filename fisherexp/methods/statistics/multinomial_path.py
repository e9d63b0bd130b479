"""Multinomial logistic regression with a lasso, along a path of penalties.

    min over W (d, K), b (K,):  -(1/n) Σ log softmax(x_n W + b)[y_n] + λ Σ_j P(W_j),   b free

P(W_j) = ‖W_j‖₁ (lasso: a coefficient is in or out for each class) or ‖W_j‖₂ (grouped: a feature is in or out for all
of them; Simon, Friedman, Hastie 2013). By the accelerated proximal gradient with restarts (Beck, Teboulle 2009;
O'Donoghue, Candès 2015): step 1/L with L = λ_max([X 1]ᵀ[X 1]) / 2n. scikit-learn's C is 1 / nλ; it has no grouped one.
"""

from typing import Literal, NamedTuple

import numpy as np
from scipy.special import log_softmax

Penalty = Literal["lasso", "grouped"]


class Fit(NamedTuple):
    """weights: W (d, K). intercepts: b (K,). iterations: of the solver."""

    weights: np.ndarray
    intercepts: np.ndarray
    iterations: int = 0


def intercepts_alone(labels: np.ndarray, classes: int, features: int) -> Fit:
    """The fit at a large λ: the classes' frequencies, as logarithms of mean zero. An empty class counts as half."""
    logs = np.log(np.maximum(np.bincount(labels, minlength=classes), 0.5))
    return Fit(np.zeros((features, classes)), logs - logs.mean())


def shrunk(weights: np.ndarray, by: float, penalty: Penalty) -> np.ndarray:
    """argmin_V ½ ‖V - W‖² + by Σ_j P(V_j)."""
    if penalty == "lasso":
        return np.sign(weights) * np.maximum(np.abs(weights) - by, 0)
    norms = np.linalg.norm(weights, axis=1, keepdims=True)
    return weights * np.maximum(1 - by / np.maximum(norms, 1e-300), 0)


def deviance(fit: Fit, inputs: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log softmax at the labels (n,)."""
    logs = log_softmax(inputs @ fit.weights + fit.intercepts, axis=1)
    return float(-logs[np.arange(len(labels)), labels].mean())


def slope(fit: Fit, inputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the mean deviance, in W and b. targets: one-hot (n, K)."""
    errors = (np.exp(log_softmax(inputs @ fit.weights + fit.intercepts, axis=1)) - targets) / len(inputs)
    return inputs.T @ errors, errors.sum(0)


def largest_penalty(inputs: np.ndarray, labels: np.ndarray, classes: int, penalty: Penalty) -> float:
    """The least λ at which W is zero."""
    start = intercepts_alone(labels, classes, inputs.shape[1])
    gradient, _ = slope(start, inputs, np.eye(classes)[labels])
    return float(np.abs(gradient).max() if penalty == "lasso" else np.linalg.norm(gradient, axis=1).max())


def fitted(
    inputs: np.ndarray,
    labels: np.ndarray,
    classes: int,
    strength: float,
    penalty: Penalty,
    start: Fit | None = None,
    tolerance: float = 1e-6,
    most: int = 5000,
) -> Fit:
    """The fit at λ = `strength`. inputs: (n, d), labels: int (n,). start: a fit at a λ nearby.

    Stops when no coefficient moves by more than `tolerance` times the step, which is when the gradient is met so well.
    """
    targets = np.eye(classes)[labels]
    start = intercepts_alone(labels, classes, inputs.shape[1]) if start is None else start
    step = 1 / curvature(inputs)
    weights, intercepts = start.weights, start.intercepts
    ahead, momentum = Fit(weights, intercepts), 1.0
    iteration = 0
    for iteration in range(1, most + 1):  # noqa: B007 - returned
        in_weights, in_intercepts = slope(ahead, inputs, targets)
        moved = shrunk(ahead.weights - step * in_weights, step * strength, penalty)
        shifted = ahead.intercepts - step * in_intercepts
        residual = max(np.abs(moved - ahead.weights).max(initial=0), np.abs(shifted - ahead.intercepts).max())
        turned = ((ahead.weights - moved) * (moved - weights)).sum()
        turned += (ahead.intercepts - shifted) @ (shifted - intercepts)
        following = 1.0 if turned > 0 else (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        share = 0.0 if turned > 0 else (momentum - 1) / following
        ahead = Fit(moved + share * (moved - weights), shifted + share * (shifted - intercepts))
        weights, intercepts, momentum = moved, shifted, following
        if residual <= tolerance * step:
            break
    return Fit(weights, intercepts - intercepts.mean(), iteration)


def curvature(inputs: np.ndarray) -> float:
    """L: the Hessian of a softmax is at most ½."""
    whole = np.c_[inputs, np.ones(len(inputs))]
    gram = whole.T @ whole if whole.shape[1] <= len(whole) else whole @ whole.T
    return float(np.linalg.eigvalsh(gram)[-1]) / (2 * len(inputs))


def folds(labels: np.ndarray, groups: np.ndarray | None, count: int, draw: np.random.Generator) -> np.ndarray:
    """A fold for each row: int (n,). Rows of a group share one; without groups each class is spread over all folds."""
    if groups is not None:
        names, places = np.unique(groups, return_inverse=True)
        if len(names) < count:
            raise ValueError(f"method.folds={count}: there are {len(names)} groups")
        return (draw.permutation(len(names)) % count)[places]
    found = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        found[rows] = (draw.permutation(len(rows)) + draw.integers(count)) % count
    return found
