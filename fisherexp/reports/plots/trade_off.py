"""What a method keeps against what it pays: two metrics, a point per method, with deviations and reference models.

Where it is known of both metrics which way is better, a line joins the methods that no other beats in both.
"""

from collections.abc import Sequence
from typing import Any

from fisherexp.figures import canvas
from fisherexp.reports.grouping import Record, Row, references, rows
from fisherexp.reports.plots import Request
from fisherexp.reports.plots._front import undominated
from fisherexp.reports.plots._style import MANY, fit, label, legend, looks, one_problem, reach
from fisherexp.reports.spread import Spread, spread

# (x, y) by what the records have: unlearning, adaptation, domains, fine-tuning, compression.
PAIRS = (
    ("forget_accuracy", "retain_accuracy"),
    ("clean_error", "mean_error"),
    ("train_accuracy", "target_accuracy"),
    ("source_accuracy", "test_accuracy"),
    ("effective_bits", "test_perplexity"),
    ("effective_bits", "test_accuracy"),
)
WIDE = 10  # the largest perplexity over the smallest, from which on the axis is logarithmic


def draw(records: list[Record], request: Request) -> Any:
    """x and y default to the pair of metrics the records' wing is about."""
    problem = one_problem(records, request.over)
    x, y = axes_of(records, request, PAIRS)
    found = [*references(records, request.over), *rows(records, request.over)]
    points = [(row, spread(row.values(x)), spread(row.values(y))) for row in found]
    figure, axes = scattered(points, request.methods)
    axes.set(xlabel=label(records, x), ylabel=label(records, y))
    for axis, metric, place in ((axes.xaxis, x, 1), (axes.yaxis, y, 2)):
        if spreads := [point[place] for point in points if point[1] and point[2]]:
            low, high = reach(spreads, label(records, metric))
            logarithmic = metric.endswith("perplexity") and high > WIDE * low > 0  # e to a loss, which may be anything
            fit(axis, label(records, metric), low, high, logarithmic)
    own = [(a.mean, b.mean) for row, a, b in points if row.stage == "after" and a and b]
    if (wanted_x := direction(records, x)) and (wanted_y := direction(records, y)):
        front = undominated(own, wanted_y, wanted_x)
        axes.plot(*zip(*front, strict=True), color="0.6", linewidth=1, zorder=0)
    axes.set_title(problem, fontsize=10)
    return figure


def direction(records: list[Record], metric: str) -> str | None:
    """Which way is better, 'higher' or 'lower'; None where no record says it."""
    return next((r["better"][metric] for r in records if metric in r.get("better", {})), None)


def scattered(
    points: Sequence[tuple[Row, Spread | None, Spread | None]], methods: Sequence[str] = ()
) -> tuple[Any, Any]:
    """A figure with a point and its deviations for each row that has both values; reference models are hollow.

    Rows of one method that differ in one number are a curve along it. Where rows are many, those of one method look
    alike. methods: as in `looks`.
    """
    points = [(row, a, b) for row, a, b in points if a and b]
    alike, curves = len(points) > MANY, swept([row for row, _, _ in points])
    names = [
        row.labels[-1] if alike or row.labels[-1] in curves else f"{row.labels[-1]} {row.options}".strip()
        for row, _, _ in points
    ]
    style, outside = looks(set(names), methods), len(set(names)) > 6
    figure, axes = canvas(size=(7.6 if outside else 6.4, 4.6))
    for name, look in style.items():
        some = [point for point, other in zip(points, names, strict=True) if other == name]
        look = look | {"linestyle": "none", "markersize": 4 if alike else 7, "capsize": 2, "elinewidth": 0.8}
        if some[0][0].stage != "after":
            look |= {"markerfacecolor": "white", "markeredgewidth": 1.4}
        if name in curves and not alike:
            key, order = curves[name]
            some = sorted(some, key=lambda point: order[point[0].options])
            look, name = look | {"linestyle": "-", "linewidth": 1}, f"{name}, by {key}"
            for row, a, b in some:
                value = f"{order[row.options]:g}"
                axes.annotate(value, (a.mean, b.mean), (4, 4), textcoords="offset points", fontsize=7)
        (x, xerr), (y, yerr) = (_with_bars([point[i] for point in some]) for i in (1, 2))
        axes.errorbar(x, y, xerr=xerr, yerr=yerr, **look, label=name)
    if points:
        legend(axes, outside)
    return figure, axes


def swept(found: Sequence[Row]) -> dict[str, tuple[str, dict[str, float]]]:
    """Method -> (option, its number by the row's options), for methods whose rows differ in one number."""
    by_method: dict[str, list[str]] = {}
    for row in found:
        by_method.setdefault(row.labels[-1], []).append(row.options)
    curves = {}
    for method, texts in by_method.items():
        pairs = [text.partition("=") for text in texts]
        try:
            numbers = {text: float(value) for text, (_, _, value) in zip(texts, pairs, strict=True)}
        except ValueError:
            continue
        if len(numbers) > 1 and len({key for key, _, _ in pairs}) == 1:
            curves[method] = (pairs[0][0], numbers)
    return curves


def _with_bars(found: list[Spread]) -> tuple[list[float], list[float] | None]:
    """Means and deviations; None where no value was repeated."""
    bars = [s.deviation if s.n > 1 else 0.0 for s in found]
    return [s.mean for s in found], bars if any(s.n > 1 for s in found) else None


def axes_of(records: list[Record], request: Request, pairs: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """The metrics of both axes; by default of pairs that all records have the first, or else that some have. Raises
    ValueError where there is no default, naming what there is."""
    each = [set(record["metrics"]["after"]) for record in records]
    have = set.intersection(*each)
    default = next(((x, y) for known in (have, *each) for x, y in pairs if {x, y} <= known), (None, None))
    x, y = request.x or default[0], request.y or default[1]
    for axis, metric in (("x", x), ("y", y)):
        if metric is None or metric not in (*have, *default):
            reason = f"not every run has '{metric}'" if metric else "there is no usual metric for these runs"
            raise ValueError(f"--{axis}: {reason}; choose from {', '.join(sorted(have))}")
    return x, y
