"""Texts chosen from a pool by how their n-grams compare with a target's: importance weights, and what they replaced.

    importance:   log w(x) = c(x) · (log(p + 1e-8) - log(q + 1e-8))
    cosine:       of c(x) and the target's counts
    classifier:   P(target | x), of a logistic regression that tells texts of the target from those of the pool

c(x): how many n-grams of x fall into each of the buckets (hashed_ngrams.py); p, q: shares of the buckets in target and
pool. Xie et al., NeurIPS 2023, arXiv 2302.03169. Their classifier is fastText's, a logistic regression as well; as in
GPT-3's recipe, a text is kept where a draw of a Pareto law of shape 9 exceeds one minus its probability.

A text is given by the buckets of its n-grams, int64 (m,).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

Selection = Literal["dsir", "cosine", "classifier", "random"]
Scorer = Callable[[np.ndarray], float]

FLOOR = 1e-8  # in the logarithms, as in the authors' package
PARETO = 9.0


def log_ratio(target: np.ndarray, raw: np.ndarray, smoothing: float) -> np.ndarray:
    """log p - log q of buckets (b,) from counts. smoothing: pseudo-count of the target's."""
    wanted, there = target + smoothing, raw
    return np.log(wanted / wanted.sum() + FLOOR) - np.log(there / there.sum() + FLOOR)


def cosine(text: np.ndarray, target: np.ndarray) -> float:
    """Of two vectors of counts; 0 for a text without words."""
    return float(text @ target / max(np.linalg.norm(text) * np.linalg.norm(target), 1e-300))


def importance_scorer(target: np.ndarray, raw: np.ndarray, smoothing: float) -> Scorer:
    """log w, from the counts (b,) of target and pool."""
    ratio = log_ratio(target, raw, smoothing)
    return lambda text: float(ratio[text].sum())


def cosine_scorer(target: np.ndarray) -> Scorer:
    """The cosine with the target's counts (b,)."""
    return lambda text: cosine(np.bincount(text, minlength=len(target)), target)


def classifier_scorer(target: Iterable[np.ndarray], raw: Iterable[np.ndarray], buckets: int) -> Scorer:
    """P(target | x), the two kinds weighed alike, of a text's shares of the buckets scaled to norm one."""
    wanted, there = list(target), list(raw)
    inputs = _directions([*wanted, *there], buckets)
    told = np.r_[np.ones(len(wanted)), np.zeros(len(there))]
    # Of vectors of norm one the usual C = 1 would leave all weights near zero.
    model = LogisticRegression(C=100.0, class_weight="balanced", max_iter=1000).fit(inputs, told)
    weights, offset = model.coef_[0], float(model.intercept_[0])

    def score(text: np.ndarray) -> float:
        places, count = np.unique(text, return_counts=True)
        return float(expit(weights[places] @ count / max(np.linalg.norm(count), 1.0) + offset))

    return score


def _directions(texts: Sequence[np.ndarray], buckets: int) -> csr_matrix:
    """Counts of texts, each row scaled to norm one: (n, b)."""
    found = [np.unique(text, return_counts=True) for text in texts]
    values = [count / max(np.linalg.norm(count), 1.0) for _, count in found]
    ends = np.cumsum([0, *(len(places) for places, _ in found)])
    columns = np.concatenate([places for places, _ in found])
    return csr_matrix((np.concatenate(values), columns, ends), shape=(len(texts), buckets))


def noise(selection: Selection, count: int, targets: int, draw: np.random.Generator) -> np.ndarray | None:
    """What is added to scores (count, targets) so that the largest are a draw; None where no draw is meant."""
    if selection == "cosine":
        return None
    if selection == "classifier":
        return draw.pareto(PARETO, size=(count, targets))
    return draw.gumbel(size=(count, targets))


def chosen(scores: np.ndarray, eligible: np.ndarray, count: int, noise: np.ndarray | None) -> np.ndarray:
    """Places of the `count` largest scores (n,) among the eligible (bool), noise (n,) added, in order of places."""
    keys = np.where(eligible, scores if noise is None else scores + noise, -np.inf)
    return np.sort(np.argsort(-keys, kind="stable")[:count])


def sizes(count: int, proportions: np.ndarray) -> list[int]:
    """How many of `count` texts are for each target: its share, rounded down; the last one has what is left."""
    shares = [int(count * share) for share in proportions / proportions.sum()]
    return [*shares[:-1], count - sum(shares[:-1])]


def chosen_in_turn(
    scores: np.ndarray, eligible: np.ndarray, counts: Sequence[int], noise: np.ndarray | None
) -> list[np.ndarray]:
    """For each target the places of its texts: `counts` of them by its column of the scores (n, t), without those that
    a target before has."""
    left, found = eligible.copy(), []
    for target, count in enumerate(counts):
        column = None if noise is None else noise[:, target]
        found.append(chosen(scores[:, target], left, count, column))
        left[found[-1]] = False
    return found
