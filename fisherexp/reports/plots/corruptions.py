"""Error under each corruption, a line of points per method, with deviations."""

from typing import Any

from fisherexp.figures import canvas
from fisherexp.reports.grouping import Record, rows
from fisherexp.reports.plots import Request
from fisherexp.reports.plots._style import looks, named, one_problem
from fisherexp.reports.spread import spread


def draw(records: list[Record], request: Request) -> Any:
    """Corruptions in the order of the records."""
    problem = one_problem(records, request.over)
    metrics = [name for name in records[0]["metrics"]["after"] if name.startswith("error/")]
    if not metrics:
        raise ValueError("these runs have no error per corruption: choose runs of a stream, e.g. scenario=continual")
    found = named(rows(records, request.over))
    figure, axes = canvas(size=(9.6, 4.6))
    style, width = looks(found, request.methods), 0.7 / max(len(found), 1)
    for i, (name, row) in enumerate(sorted(found.items())):
        spreads = [spread(row.values(metric)) for metric in metrics]
        places = [j + width * (i - (len(found) - 1) / 2) for j in range(len(metrics))]
        means = [s.mean if s else float("nan") for s in spreads]
        bars = [s.deviation if s and s.n > 1 else 0.0 for s in spreads]
        look = style[name] | {"linestyle": "none", "markersize": 5, "elinewidth": 0.8}
        axes.errorbar(places, means, bars, **look, label=name)
    for j in range(0, len(metrics), 2):  # so that the eye finds the corruption of a point
        axes.axvspan(j - 0.5, j + 0.5, color="0.95", zorder=0)
    words = [metric.removeprefix("error/").replace("_", " ") for metric in metrics]
    axes.set_xticks(range(len(metrics)), words, rotation=40, ha="right", fontsize=8)
    axes.set(ylabel="error (%)", xlim=(-0.5, len(metrics) - 0.5))
    axes.set_title(problem, fontsize=10)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
