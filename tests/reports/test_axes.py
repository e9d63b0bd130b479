"""Axes a reader can trust: no accuracy of 104 %, no negative time; and a method's color is its own in every figure."""

import pytest
from made_records import record
from matplotlib.colors import to_hex

from fisherexp.figures import canvas
from fisherexp.reports.plots import Request, kinds
from fisherexp.reports.plots._style import fit, looks, reach
from fisherexp.reports.spread import spread


@pytest.mark.parametrize(
    ("heading", "low", "high"),
    [
        ("retain acc. (%)", 99.7, 99.7),
        ("retain acc. (%)", 0.0, 0.0),
        ("retain acc. (%)", 2.0, 100.0),
        ("time (s)", 0.04, 0.04),
        ("time (s)", 0.0, 0.0),
        ("time (s)", 0.04, 30.0),
        ("return", -2.0, 3.0),
        ("change (%)", -20.0, 140.0),
    ],
)
def test_limits_hold_the_figures_and_ticks_are_possible(heading, low, high):
    _, axes = canvas()
    axes.plot([low, high], [low, high], "o")
    fit(axes.yaxis, heading, low, high)
    bottom, top = axes.get_ylim()
    ticks = axes.get_yticks()
    assert bottom < low <= high < top
    assert len(ticks) >= 2
    if low >= 0:
        assert min(ticks) >= 0
        assert bottom >= -0.05 * (top - bottom)
    if "%" in heading and low >= 0 and high <= 100:
        assert max(ticks) <= 100
        assert top - bottom >= 5


def test_matplotlib_alone_would_go_beyond():
    _, axes = canvas()
    axes.plot([1], [99.7], "o")
    assert max(axes.get_yticks()) > 100  # the control: what `fit` is there for


def test_deviations_count_as_far_as_they_are_possible():
    certain, vague = spread([99.0, 100.0]), spread([1.0, 9.0])
    assert reach([certain, vague], "acc. (%)") == (0.0, 100.0)
    assert reach([certain, vague], "points") == (0.0, 99.5 + certain.deviation)
    assert reach([spread([-3.0, 1.0])], "return") == pytest.approx((-1 - 8**0.5, -1 + 8**0.5))


def colors(kind, records, methods):
    axes = kinds()[kind].draw(records, Request(methods=methods)).axes[0]
    handles, labels = axes.get_legend_handles_labels()
    lines = [handle[0] if isinstance(handle, tuple) else handle for handle in handles]
    return {
        label.partition(" ")[0].rstrip(","): to_hex(line.get_color()) for label, line in zip(labels, lines, strict=True)
    }


def test_a_method_keeps_its_color_from_figure_to_figure():
    everyone = [record(m, 0, v) for m, v in (("erm", 80.0), ("scrub", 70.0), ("ssd", 90.0))]
    swept = [record("ssd", 0, 90.0 + 10 * a, alpha=a) for a in (0.1, 0.2)]
    for run in everyone:
        run["metrics"]["oracle"] = {"retain_accuracy": 99.0, "forget_accuracy": 0.0}
    methods = ("erm", "scrub", "ssd")
    cost, trade_off = (colors(kind, everyone, methods) for kind in ("cost", "trade_off"))
    assert {name: trade_off[name] for name in cost} == cost
    assert len({*cost.values()}) == 3
    assert colors("sweep", swept, methods)["ssd"] == cost["ssd"]
    assert colors("sweep", swept, ())["ssd"] != cost["ssd"]  # alone it is the first: what `methods` is there for


def test_variants_are_shades_of_their_method_and_references_gray():
    found = looks(["ssd alpha=0.1", "ssd alpha=0.2", "erm", "(oracle)"])
    assert found["ssd alpha=0.1"]["color"] == looks(["erm", "ssd"])["ssd"]["color"]
    shades = {found[name]["color"] for name in ("ssd alpha=0.1", "ssd alpha=0.2", "erm")}
    assert len(shades) == 3
    assert found["(oracle)"]["color"] == "#777777"
