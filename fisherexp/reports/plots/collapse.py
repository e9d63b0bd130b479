"""Neural-collapse metrics over epochs, a line per method (runs with callbacks=[neural_collapse])."""

from pathlib import Path
from typing import Any

from fisherexp.figures import canvas
from fisherexp.reports.grouping import Record, rows
from fisherexp.reports.plots import Request
from fisherexp.reports.plots._left import numbers
from fisherexp.reports.plots._style import looks, named, one_problem
from fisherexp.reports.spread import spread

# Column of neural_collapse.csv -> title; the first is spread over orders of magnitude.
PANELS = {
    "clean/nc1": "NC1: within / between classes",
    "clean/nc2_equinorm_means": "NC2: std / mean of lengths",
    "clean/nc2_angle_means": "NC2: mean |cos + 1/(C-1)|",
    "clean/nc3": "NC3: means against classifier",
    "clean/nc4": "NC4: share of disagreements",
    "clean/accuracy": "clean training accuracy (%)",
}


def draw(records: list[Record], request: Request) -> Any:
    """Means over seeds; the band is the standard deviation."""
    problem = one_problem(records, request.over)
    series: dict[str, dict[str, dict[float, list[float]]]] = {}
    for name, row in named(rows(records, request.over)).items():
        for run in row.runs:
            for line in numbers(Path(run["folder"]) / "neural_collapse.csv"):
                for column in PANELS:
                    values = series.setdefault(name, {}).setdefault(column, {})
                    values.setdefault(line["epoch"], []).append(line[column])
    if not series:
        raise ValueError("no run left a neural_collapse.csv: run with callbacks=[neural_collapse]")
    from matplotlib.ticker import NullFormatter

    figure, axes = canvas(2, 3, (11, 6.2))
    for panel, (column, title) in zip(axes.flat, PANELS.items(), strict=True):
        for name, look in looks(series, request.methods).items():
            epochs = sorted(series[name][column])
            spreads = [spread(series[name][column][epoch]) for epoch in epochs]
            panel.plot(epochs, [s.mean for s in spreads], **look, markersize=3.5, linewidth=1.2, label=name)
            bands = [s.deviation if s.n > 1 else 0.0 for s in spreads]
            low = [s.mean - band for s, band in zip(spreads, bands, strict=True)]
            high = [s.mean + band for s, band in zip(spreads, bands, strict=True)]
            panel.fill_between(epochs, low, high, color=look["color"], alpha=0.15, linewidth=0)
        panel.set(title=title, xlabel="epoch", xscale="log", yscale="log" if column == "clean/nc1" else "linear")
        panel.title.set_fontsize(10)
        panel.yaxis.set_minor_formatter(NullFormatter())
    figure.legend(
        *axes.flat[0].get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside lower center", ncols=6
    )
    figure.suptitle(problem, fontsize=11)
    return figure
