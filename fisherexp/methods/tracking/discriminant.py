"""Fisher's linear discriminant of what tracks looked like lately: directions that tell them apart.

    S_w = Σ_c (n_c / N) Σ_c          Σ_c: covariance of a track's features, shrunk as Ledoit and Wolf do
    S_b = Σ_c w_c (μ_c - μ)(μ_c - μ)ᵀ   μ_c, μ: means weighted by recency, w_c: the sum of a track's weights
    S_b v = λ S_w v                    P: the C - 1 largest, Pᵀ S_w P = I

HATReID (Gao et al., arXiv 2503.12562), as in the authors' code: covariances are unweighted and centered on the plain
mean even where the means are weighted; the shrinkage is scikit-learn's, of features standardized class by class and
scaled back. That code has three other S_b, from which `between` chooses:

    pairs           Σ_c w_c Σ_c' (μ_c - μ_c')(μ_c - μ_c')ᵀ
    similar_pairs   the same, each pair times (1 + cos(μ_c, μ_c')) / 2
    remainder       S_t - S_w with S_t the shrunk covariance of all features, as scikit-learn has it; without recency

Features are float64 (n, d).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.linalg import eigh
from sklearn.covariance import ledoit_wolf

Between = Literal["means", "pairs", "similar_pairs", "remainder"]


class Scatter(NamedTuple):
    """within, between: S_w and S_b (d, d)."""

    within: np.ndarray
    between: np.ndarray


def recency_weights(count: int, decay: float) -> np.ndarray:
    """(count,), oldest first: the newest has `decay`, each one before `decay` times as much."""
    return decay ** np.arange(count, 0, -1.0)


def shrunk_covariance(features: np.ndarray) -> np.ndarray:
    """Ledoit and Wolf's of the features (n, d), standardized before and scaled back: (d, d). Of one feature zeros."""
    if len(features) == 1:
        return np.zeros((features.shape[1], features.shape[1]))
    scale = features.std(axis=0)
    scale[scale == 0] = 1
    covariance, _ = ledoit_wolf((features - features.mean(axis=0)) / scale, assume_centered=False)
    return covariance * np.outer(scale, scale)


def scatter(
    histories: Sequence[np.ndarray],
    decay: float = 1.0,
    shrink: bool = True,
    between: Between = "means",
    exponent: float = 1.0,
) -> Scatter:
    """Of the features of each track (n_c, d), oldest first. decay: 1 gives plain means. shrink: False takes the
    covariances as they are. exponent: of the weights within means; w_c is the sum of the weights themselves."""
    covariance = shrunk_covariance if shrink else lambda part: np.cov(part.T, bias=True)
    total = sum(map(len, histories))
    within = sum(len(part) / total * covariance(part) for part in histories)
    if between == "remainder":
        return Scatter(within, covariance(np.concatenate(histories)) - within)
    mass = np.array([recency_weights(len(part), decay).sum() for part in histories])
    weights = [recency_weights(len(part), decay) ** exponent for part in histories]
    sums = np.stack([w @ part for w, part in zip(weights, histories, strict=True)])
    share = np.array([w.sum() for w in weights])
    means = sums / share[:, None]
    if between == "means":
        away = means - sums.sum(axis=0) / share.sum()
        return Scatter(within, (mass * away.T) @ away)
    pairs = np.repeat(mass[:, None], len(mass), axis=1)
    if between == "similar_pairs":
        pairs = pairs * (1 + cosine(means, means)) / 2
    # Σ_ij p_ij (μ_i - μ_j)(μ_i - μ_j)ᵀ = Mᵀ (diag(p 1 + pᵀ 1) - p - pᵀ) M
    laplacian = np.diag(pairs.sum(1) + pairs.sum(0)) - pairs - pairs.T
    return Scatter(within, means.T @ laplacian @ means)


def cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosines between rows: (n, d), (m, d) -> (n, m). Of a zero row 0."""
    norms = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(other, axis=1)
    return np.divide(one @ other.T, norms, out=np.zeros_like(norms), where=norms > 0)


def projection(found: Scatter, rank: int) -> np.ndarray:
    """P (d, rank), Pᵀ S_w P = I, the largest eigenvalues first. A ridge of 1e-10 of S_w's mean variance keeps it
    positive definite where no track has varied in a direction."""
    size = len(found.within)
    ridge = 1e-10 * np.trace(found.within) / size
    _, vectors = eigh(found.between, found.within + ridge * np.eye(size), subset_by_index=(size - rank, size - 1))
    return vectors[:, ::-1]
