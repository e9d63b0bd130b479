"""Loss along the line between two networks, before and after their units were matched, with the mean of all seeds."""

from statistics import fmean
from typing import Any

from fisherexp.figures import canvas
from fisherexp.reports.grouping import Record, rows
from fisherexp.reports.plots import Request
from fisherexp.reports.plots._style import COLORS, legend, one_problem


def draw(records: list[Record], request: Request) -> Any:
    """Needs runs of method=weight_matching; a panel for each group of them, a thin line for each seed."""
    problem = one_problem(records, request.over)
    records = [record for record in records if "curve" in record.get("outcome", {})]
    found = rows(records, request.over)
    if not found:
        raise ValueError("no run followed the line between two networks: run method=weight_matching")
    figure, panels = canvas(1, len(found), size=(1.2 + 2.8 * len(found), 3.4), squeeze=False, sharey=True)
    for axes, row in zip(panels[0], found, strict=True):
        for kind, color in zip(("naive", "matched"), COLORS[1::-1], strict=True):
            curves = [run["outcome"]["curve"][kind] for run in row.runs]
            shares = [i / (len(curves[0]) - 1) for i in range(len(curves[0]))]
            for curve in curves:
                axes.plot(shares, curve, color=color, alpha=0.3, linewidth=0.7)
            mean = [fmean(values) for values in zip(*curves, strict=True)]
            axes.plot(shares, mean, color=color, marker="o", markersize=3, label=kind)
        axes.set_xlabel("share of the other network")
        axes.set_title(row.options or row.labels[-1], fontsize=9)
    panels[0][0].set_ylabel("training loss (nats)")
    legend(panels[0][-1], outside=False)
    figure.suptitle(problem, fontsize=10)
    return figure
