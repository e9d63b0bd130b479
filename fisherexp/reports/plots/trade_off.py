"""What a method keeps against what it pays: two metrics, a point per method, with deviations and reference models."""

from collections.abc import Sequence
from typing import Any

from fisherexp.reports.grouping import Record, references, rows
from fisherexp.reports.plots import Request
from fisherexp.reports.plots._style import canvas, label, legend, looks, one_problem
from fisherexp.reports.spread import spread

# (x, y) by what the records have: unlearning, adaptation, domains.
PAIRS = (
    ("forget_accuracy", "retain_accuracy"),
    ("clean_error", "mean_error"),
    ("train_accuracy", "target_accuracy"),
)


def draw(records: list[Record], request: Request) -> Any:
    """x and y default to the pair of metrics the records' wing is about."""
    problem = one_problem(records, request.over)
    x, y = axes_of(records, request, PAIRS)
    found = [*references(records, request.over), *rows(records, request.over)]
    points = {}
    for row in found:
        name = f"{row.labels[-1]} {row.options}".strip()
        if (a := spread(row.values(x))) and (b := spread(row.values(y))):
            points[name] = (a, b, row.stage)
    figure, axes = canvas(size=(6.4 if len(points) <= 6 else 7.6, 4.6))
    style = looks(points)
    for name, (a, b, stage) in points.items():
        bars = {"xerr": a.deviation, "yerr": b.deviation} if a.n > 1 else {}
        look = style[name] | {"linestyle": "none", "markersize": 7, "label": name, "capsize": 2, "elinewidth": 0.8}
        if stage != "after":  # a reference, not a competitor
            look |= {"markerfacecolor": "white", "markeredgewidth": 1.4}
        axes.errorbar(a.mean, b.mean, **bars, **look)
    axes.set(xlabel=label(records, x), ylabel=label(records, y))
    axes.set_title(problem, fontsize=10)
    axes.margins(0.08)
    legend(axes, len(points))
    return figure


def axes_of(records: list[Record], request: Request, pairs: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """The metrics of both axes. Raises ValueError where there is no default, naming what there is."""
    have = set.intersection(*(set(record["metrics"]["after"]) for record in records))
    default = next(((x, y) for x, y in pairs if {x, y} <= have), (None, None))
    x, y = request.x or default[0], request.y or default[1]
    for axis, metric in (("x", x), ("y", y)):
        if metric not in have:
            reason = f"not every run has '{metric}'" if metric else "there is no usual metric for these runs"
            raise ValueError(f"--{axis}: {reason}; choose from {', '.join(sorted(have))}")
    return x, y
