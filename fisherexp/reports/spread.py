"""Figures of a handful of repetitions: mean, deviation, confidence interval, paired comparison."""

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """n values: mean, sample standard deviation (n - 1), half-width of the 95 % confidence interval of the mean
    (Student's t). The last two are NaN for a single value."""

    n: int
    mean: float
    deviation: float
    half_width: float


def spread(values: Sequence[float]) -> Spread | None:
    """The spread of some values; None for none."""
    if not values:
        return None
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Spread(1, mean, math.nan, math.nan)
    deviation = statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan
    return Spread(n, mean, deviation, student_quantile(n - 1) * deviation / math.sqrt(n))


def student_quantile(degrees: int) -> float:
    """The t that a Student variable exceeds in absolute value with probability 1 - CONFIDENCE."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))


def paired_p(ours: Mapping[Hashable, float], theirs: Mapping[Hashable, float]) -> float | None:
    """Two-sided p of a paired t-test over the keys both have; 1 where no pair differs.

    None for fewer than two pairs, and where all differ by the same amount up to rounding: without a deviation there
    is nothing to evaluate a difference by (R's t.test calls such data essentially constant).
    """
    keys = [key for key in ours if key in theirs]
    if len(keys) < 2:
        return None
    differences = [ours[key] - theirs[key] for key in keys]
    if not any(differences):
        return 1.0
    size = max(abs(value) for key in keys for value in (ours[key], theirs[key]))
    if max(differences) - min(differences) <= 1e-12 * size:
        return None
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(differences, 0.0).pvalue)
