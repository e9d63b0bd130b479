"""Who is best, and by how much, against figures worked out by hand."""

import pytest
from made_records import record

from fisherexp.reports.comparison import compare
from fisherexp.reports.page.winners import winners


def found(retains):
    """Winner in accuracy where method -> its runs' accuracies; 'oracle', a reference, has 100."""
    runs = [record(method, seed, value) for method, values in retains.items() for seed, value in enumerate(values)]
    for run in runs:
        run["metrics"]["oracle"] = {"retain_accuracy": 100.0}
    (one,) = (w for w in winners(compare(runs, with_references=True)) if w.metric == "retain acc. %")
    return one


@pytest.mark.parametrize(
    ("retains", "best", "value", "second", "lead", "verdict"),
    [
        ({"a": [97, 99], "b": [91, 93]}, "a", "98.0 ± 1.4", "b", "6.0", "more than both deviations"),
        ({"a": [97, 99], "b": [96, 98]}, "a", "98.0 ± 1.4", "b", "1.0", "within the deviations"),
        ({"a": [90], "b": [99], "c": [80]}, "b", "99.0", "a", "9.0", "one run: how far it scatters is not known"),
        ({"a": [99], "b": [99], "c": [80]}, "a, b", "99.0", "c", "19.0", "one run: how far it scatters is not known"),
    ],
)
def test_best_next_and_lead(retains, best, value, second, lead, verdict):
    one = found(retains)
    assert (one.best, one.value, one.next, one.lead, one.verdict) == (best, value, second, lead, verdict)
    assert one.goal == "higher"


def test_lower_is_better_where_the_metric_says_so_and_others_have_no_winner():
    runs = [record("slow", 3, 90.0), record("fast", 0, 80.0)]
    by_metric = {one.metric: one.best for one in winners(compare(runs))}
    assert by_metric == {"retain acc. %": "slow", "seconds": "fast"}  # forget acc. % has no direction


def test_equal_figures_have_no_winner():
    assert "retain acc. %" not in {one.metric for one in winners(compare([record("a", 0, 90.0), record("b", 1, 90.0)]))}
