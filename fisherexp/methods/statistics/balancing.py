"""Weights of chosen pairs with which functions of the pairs have the means that they have over all pairs.

    min (1/n) Σ w_i log w_i   over w ≥ 0 of mean 1,   |(1/n) Σ w_i K(z_i, c_j) - mean_all K(·, c_j)| ≤ C  for each j

z are features of a pair, K is a Gaussian or exponential kernel, c_j its centers. Solved by the dual: w_i =
n softmax(Φλ), λ minimizing log mean exp(Φλ) - λ·h + C ‖λ‖₁. With the functions z instead of kernels this is the balance
of moments; of propensities there are a logistic regression on z and naive Bayes on the ratings.

Li et al., Debiased Collaborative Filtering with Kernel-Based Causal Balancing, ICLR 2024, arXiv 2404.19596. Where the
authors' code differs: it learns w as a factorization, times naive Bayes, in small batches; bounds the sum of the signed
gaps over centers, in which they cancel; does not fix the mean of w, although (1/n) Σ w log w is least at w = 1/e; and
takes a fixed width of the kernel, at which it is nearly linear. Ours has each gap bounded, the mean fixed (the constant
is one of the balanced functions), and the median distance as the width.
"""

import math
from typing import Literal

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch import Tensor

Kernel = Literal["gaussian", "exponential"]


def median_distance(points: Tensor, most: int = 500) -> float:
    """Of pairs among the first `most` points (n, d); 1 where all are one."""
    distances = torch.pdist(points[:most])
    return float(distances.median()) or 1.0 if len(distances) else 1.0


def kernels(points: Tensor, centers: Tensor, width: float, kernel: Kernel) -> Tensor:
    """K(z_i, c_j): (n, J). gaussian: exp(-‖z - c‖² / 2 width²); exponential: exp(-‖z - c‖ / width)."""
    scaled = torch.cdist(points, centers) / width
    return (-scaled.square() / 2 if kernel == "gaussian" else -scaled).exp()


def balanced(functions: Tensor, means: Tensor, tolerance: float) -> Tensor:
    """Weights (n,) of mean 1 under which the functions (n, J) have these means (J,), up to `tolerance` each.

    Where no weights do, those at which the solver stops: see the largest gap, `imbalance`. Sums over the n are made in
    the functions' type and on their device, the solver is SciPy's.
    """
    centered = functions - means
    count = centered.shape[1]

    def multipliers(halves: np.ndarray) -> Tensor:
        return torch.from_numpy(halves[:count] - halves[count:]).to(centered)

    def dual(halves: np.ndarray) -> tuple[float, np.ndarray]:
        scores = centered @ multipliers(halves)
        gaps = (scores.softmax(0) @ centered).double().cpu().numpy()
        value = float(scores.double().logsumexp(0)) - math.log(len(scores)) + tolerance * halves.sum()
        return value, np.concatenate([gaps, -gaps]) + tolerance

    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13, "gtol": 1e-8}
    found = minimize(
        dual, np.zeros(2 * count), jac=True, method="L-BFGS-B", bounds=[(0, None)] * (2 * count), options=options
    )
    return len(centered) * (centered @ multipliers(found.x)).softmax(0)


def imbalance(functions: Tensor, means: Tensor, weights: Tensor) -> float:
    """Largest gap between the weighted means of functions (n, J) and `means` (J,)."""
    return float((weights @ functions / len(weights) - means).abs().max())


def adaptive_centers(functions: Tensor, errors: Tensor, weights: Tensor, count: int, ridge: float = 1e-3) -> Tensor:
    """Places (count,) of the candidates whose kernels (n, J) make up most of the errors (n,).

    The largest |ε_j| of the weighted least squares errors ≈ Σ ε_j K(·, c_j), with a little of a ridge.
    """
    weighted = functions * weights[:, None]
    normal = functions.T @ weighted
    normal.diagonal().add_(ridge * len(errors))
    coefficients = torch.linalg.solve(normal, weighted.T @ errors)
    return coefficients.abs().topk(min(count, len(coefficients))).indices.sort().values


def worst_centers(functions: Tensor, means: Tensor, count: int, tolerance: float, rounds: int = 5) -> Tensor:
    """Places (count,) of the candidates whose kernels (n, J) are worst balanced.

    A round takes those of the largest gaps under the weights that balance the ones before, at first under none.
    """
    count, weights = min(count, len(means)), functions.new_ones(len(functions))
    places = torch.zeros(0, dtype=torch.int64, device=functions.device)
    while len(places) < count:
        gaps = (weights @ functions / len(weights) - means).abs()
        gaps[places] = -1
        taken = min(-(-count // rounds), count - len(places))
        places = torch.cat([places, gaps.topk(taken).indices])
        weights = balanced(functions[:, places], means[places], tolerance)
    return places.sort().values


def logistic_weights(chosen: Tensor, everything: Tensor) -> Tensor:
    """P(chosen) / P(chosen | z) of chosen pairs (n, d), by a logistic regression that tells them from all (m, d)."""
    told = np.r_[np.ones(len(chosen)), np.zeros(len(everything))]
    model = LogisticRegression(max_iter=1000).fit(torch.cat([chosen, everything]).cpu().numpy(), told)
    odds = np.exp(-model.decision_function(chosen.cpu().numpy()))
    return torch.from_numpy(odds).to(chosen) * len(chosen) / len(everything)


def naive_bayes_weights(chosen: Tensor, unbiased: Tensor) -> Tensor:
    """P(r) / P(r | chosen) of the ratings (n,), each value's share of `unbiased` ratings and of the chosen ones."""
    values, places = chosen.unique(return_inverse=True)
    shares = torch.bincount(places).to(chosen) / len(chosen)
    truth = (unbiased[:, None] == values).to(chosen).mean(0)
    return (truth / shares)[places]
