"""Columns that others explain: variance inflation factors, and a filter that removes the worst one by one."""

from typing import NamedTuple

import numpy as np

INFINITE = 1e8  # what rounding leaves of an infinite factor is far beyond


class Removed(NamedTuple):
    """place: of a column. factor: its variance inflation when it went."""

    place: int
    factor: float


def inflation(correlations: np.ndarray) -> np.ndarray:
    """VIF_j = 1 / (1 - R²_j), R²_j of column j regressed on the others: the diagonal of correlations (d, d) inverted.

    inf for a column that others make up exactly.
    """
    values, vectors = np.linalg.eigh(correlations)
    factors = (vectors**2 / np.maximum(values, 1e-12)).sum(1)
    return np.where(factors > INFINITE, np.inf, factors)


def filtered(columns: np.ndarray, most: float) -> tuple[list[int], list[Removed]]:
    """Places of the columns (n, d) kept, and those removed, in order: the largest factor above `most` goes, again and
    again; of equals the last one. Constant columns go first, with a factor of inf."""
    varying = columns.std(0) > 1e-12
    removed = [Removed(int(place), np.inf) for place in np.flatnonzero(~varying)]
    kept = np.flatnonzero(varying).tolist()
    whole = np.atleast_2d(np.corrcoef(columns[:, kept], rowvar=False)) if kept else np.zeros((0, 0))
    there = list(range(len(kept)))
    while len(there) > 1:
        factors = inflation(whole[np.ix_(there, there)])
        worst = len(there) - 1 - int(np.argmax(factors[::-1]))
        if factors[worst] <= most:
            break
        removed.append(Removed(kept[there[worst]], float(factors[worst])))
        del there[worst]
    return [kept[place] for place in there], removed
