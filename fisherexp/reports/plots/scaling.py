"""A loss along a size (width, data, members of an ensemble) with its power law A x^-α + E, a line per method.

The law is fitted to the means over seeds; the interval of E is that of 95 % of fits to seeds drawn with replacement.
With members of an ensemble α is 1.
"""

from typing import Any

import numpy as np

from fisherexp.figures import canvas
from fisherexp.reports.grouping import Record, rows, value_of
from fisherexp.reports.plots import Request
from fisherexp.reports.plots._style import label, legend, looks, named, one_problem
from fisherexp.reports.power_law import bootstrap, fit_power_law, interval

MEMBERS = "method.members"
SMALLEST_FALL = 1e-3  # of the first size's loss, up to the last size: below it a law is not drawn


def draw(records: list[Record], request: Request) -> Any:
    """x: the config key of the size. y: one metric, by default the NLL on test data. A method with too few sizes for
    a law has points alone."""
    if request.x is None:
        raise ValueError("--x: name the option that is the size: model.dim, data.train_size or method.members")
    metric = request.y or "test_nll"
    problem = one_problem(records, request.over)
    figure, axes = canvas()
    lines = {
        name: _losses(row.runs, request.x, metric)
        for name, row in named(rows(records, (*request.over, request.x))).items()
    }
    lines = {name: line for name, line in lines.items() if line[0]}
    if not lines:
        raise ValueError(f"no run has a number under '{request.x}' and a metric '{metric}'")
    for name, look in looks(lines, request.methods).items():
        sizes, losses = lines[name]
        words, points = name, {"color": look["color"], "marker": look["marker"], "linestyle": "none"}
        axes.plot(sizes, losses.mean(0), markersize=5, **points)
        try:
            exponent = 1.0 if request.x == MEMBERS else None
            law = fit_power_law(sizes, losses.mean(0), exponent)
        except ValueError:  # too few sizes
            axes.plot([], [], label=words, **points)
            continue
        words += f": α = {law.exponent:.2f}, E = {law.floor:.3f}"
        if len(losses) > 1:
            words += " [{:.3f}, {:.3f}]".format(*interval(bootstrap(sizes, losses, exponent), "floor"))
        if law(sizes[0]) - law(sizes[-1]) < SMALLEST_FALL * law(sizes[0]):
            axes.plot([], [], label=f"{name}: does not fall, no law", **points)
            continue
        smooth = np.geomspace(sizes[0], 4 * sizes[-1], 200)
        axes.plot(smooth, law(smooth), color=look["color"], label=words)
        axes.axhline(law.floor, color=look["color"], linestyle=":", linewidth=1)
    axes.set(xscale="log", xlabel=request.x, ylabel=label(records, metric))
    ticks = sorted({size for sizes, _ in lines.values() for size in sizes})
    axes.set_xticks(ticks, [f"{size:g}" for size in ticks])
    axes.set_xticks([], minor=True)
    figure.suptitle(f"{problem}; dotted: E", fontsize=10)
    legend(axes, len(lines) > 4)
    return figure


def _losses(runs: list[Record], key: str, metric: str) -> tuple[list[float], np.ndarray]:
    """Sizes, in order, and losses (seeds, sizes) of the seeds that have all of them."""
    found: dict[float, dict[int, float]] = {}
    for run in runs:
        size, loss = value_of(run, key), run["metrics"]["after"].get(metric)
        if isinstance(size, int | float) and not isinstance(size, bool) and loss is not None:
            found.setdefault(float(size), {})[run["seed"]] = loss
    sizes = sorted(found)
    seeds = sorted(set.intersection(*map(set, found.values()))) if found else []
    return (
        (sizes, np.array([[found[size][seed] for size in sizes] for seed in seeds]))
        if seeds
        else ([], np.empty((0, 0)))
    )
