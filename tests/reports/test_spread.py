"""Figures of repetitions against SciPy's."""

import math

import numpy as np
import pytest
from scipy import stats

from fisherexp.reports.spread import paired_p, spread

VALUES = [99.1, 98.7, 99.9, 97.0]


def test_interval_is_students():
    found = spread(VALUES)
    low, high = stats.t.interval(0.95, len(VALUES) - 1, loc=np.mean(VALUES), scale=stats.sem(VALUES))
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    assert found.deviation == pytest.approx(np.std(VALUES, ddof=1))


def test_one_value_has_no_deviation():
    found = spread([3.0])
    assert (found.n, found.mean) == (1, 3.0)
    assert math.isnan(found.deviation)
    assert math.isnan(found.half_width)
    assert spread([]) is None


def test_paired_over_what_both_have():
    ours, theirs = {0: 1.0, 1: 2.5, 2: 2.0, 3: 9.0}, {0: 0.5, 1: 1.0, 2: 1.8, 4: 7.0}
    expected = stats.ttest_rel([1.0, 2.5, 2.0], [0.5, 1.0, 1.8]).pvalue
    assert paired_p(ours, theirs) == pytest.approx(expected)
    assert paired_p(ours, {0: 1.0}) is None
    assert paired_p(ours, ours) == 1.0


@pytest.mark.parametrize("differ_by", [1.0, 0.3])  # 0.3 is not the same number everywhere
def test_equal_differences_prove_nothing(differ_by):
    ours = {0: 97.1, 1: 98.4, 2: 99.9}
    assert paired_p(ours, {key: value - differ_by for key, value in ours.items()}) is None
