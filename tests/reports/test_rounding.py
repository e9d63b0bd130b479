"""A mean and its spread are rounded alike, by the spread; oracle: the digits written out by hand."""

import math

import pytest
from made_records import record

from fisherexp.reports.caption import caption
from fisherexp.reports.comparison import compare
from fisherexp.reports.summary import format_metric, format_spread, stage_lines


@pytest.mark.parametrize(
    ("heading", "mean", "around", "text"),
    [
        ("JS", 0.677, 0.000972, "0.67700 ± 0.00097"),
        ("JS", 0.0831, 0.0148, "0.083 ± 0.015"),
        ("JS", 0.486, 0.11, "0.49 ± 0.11"),
        ("JS", 0.5, 0.00996, "0.500 ± 0.010"),  # rounds up to a further digit
        ("JS", 0.001, 0.5, "0.00 ± 0.50"),
        ("JS", -0.02, 0.003, "-0.0200 ± 0.0030"),
        ("JS", 0.5, 1e-9, "0.50000 ± 0.00000"),
        ("JS", 0.5, 0.0, "0.500 ± 0.000"),
        ("JS", 0.0, 0.0, "0 ± 0"),
        ("episodes", 3012.0, 123.0, "3010 ± 120"),
        ("episodes", 5e6, 2e5, "(5.00 ± 0.20)e+06"),
        ("error", 4.49e-11, 1.2e-12, "(4.49 ± 0.12)e-11"),
        ("acc. %", 99.71, 0.04, "99.7 ± 0.0"),
        ("seconds", 12.34, 1.0, "12.3 ± 1.0"),
        ("JS", math.nan, math.nan, "nan ± nan"),
        ("JS", math.inf, math.nan, "inf ± nan"),
    ],
)
def test_mean_and_spread(heading, mean, around, text):
    assert format_spread(heading, mean, around) == text
    decimals = [
        len(part.strip("()").partition(".")[2].partition(")")[0]) for part in text.partition(")")[0].split(" ± ")
    ]
    assert decimals[0] == decimals[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(3000.0, "3000"), (12345.0, "12345"), (999.4, "999"), (0.06423, "0.0642"), (2e7, "2e+07"), (None, "")],
)
def test_a_single_figure(value, text):
    assert format_metric("episodes", value) == text


def test_oracles_and_their_spread_are_rounded_alike():
    run = record("ssd", 0, 99.0)
    run["headings"] = {"js": "JS"}
    run["metrics"] = {"after": {"js": 0.163}, "oracle": {"js": 0.0831}, "oracle_deviation": {"js": 0.000972}}
    assert stage_lines(run) == [["after", "0.163"], ["retrained oracle", "0.08310"], ["± between oracles", "0.00097"]]
    del run["metrics"]["oracle_deviation"]
    assert stage_lines(run)[1] == ["retrained oracle", "0.0831"]


@pytest.mark.parametrize(
    ("seeds", "words"),
    [([[0], [0]], "one run each"), ([[0, 1], [0, 1]], "2 runs each"), ([[0], [0, 1, 2]], "1 to 3 runs each")],
)
def test_how_many_runs_is_said_in_words(seeds, words):
    runs = [record(method, seed, 90.0 + seed) for method, some in zip(("a", "b"), seeds, strict=True) for seed in some]
    assert caption(runs, ["seed"], compare(runs).lines, None)[0] == f"values after the method, over {words} (seed)"
