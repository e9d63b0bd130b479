"""A metric along a swept option (α, λ, a learning rate), a line per method with its 95 % confidence band."""

from typing import Any

from fisherexp.figures import canvas
from fisherexp.reports.grouping import Record, flattened, rows, value_of
from fisherexp.reports.plots import Request
from fisherexp.reports.plots._style import fit, label, legend, looks, named, one_problem, reach
from fisherexp.reports.plots.trade_off import PAIRS, axes_of
from fisherexp.reports.spread import spread


def draw(records: list[Record], request: Request) -> Any:
    """x: the swept config key, by default the only one with several numbers. y: one metric, by default the wing's."""
    problem = one_problem(records, request.over)
    key = request.x or _swept(records, request.over)
    metric = request.y or axes_of(records, Request(), PAIRS)[1]
    found = rows(records, (*request.over, key))
    figure, axes = canvas()
    lines = {}
    for name, row in named(found).items():
        by_value: dict[float, list[float]] = {}
        for run in row.runs:
            value, figure_of_run = value_of(run, key), run["metrics"]["after"].get(metric)
            if _is_number(value) and figure_of_run is not None:
                by_value.setdefault(float(value), []).append(figure_of_run)
        if by_value:
            lines[name] = dict(sorted(by_value.items()))
    if not lines:
        raise ValueError(f"no run has a number under '{key}' and a metric '{metric}'")
    # Where one method's option was swept, another's of the same name, at its one value, is something else.
    lines = {name: line for name, line in lines.items() if len(line) > 1} or lines
    for name, look in looks(lines, request.methods).items():
        values = list(lines[name])
        spreads = [spread(lines[name][value]) for value in values]
        means = [s.mean for s in spreads]
        axes.plot(values, means, **look, markersize=5, label=name)
        low = [s.mean - (s.half_width if s.n > 1 else 0) for s in spreads]
        high = [s.mean + (s.half_width if s.n > 1 else 0) for s in spreads]
        axes.fill_between(values, low, high, color=look["color"], alpha=0.18, linewidth=0)
    every = sorted({value for line in lines.values() for value in line})
    axes.set(xlabel=key, ylabel=label(records, metric))
    fit(axes.xaxis, key, every[0], every[-1], every[0] > 0 and every[-1] / every[0] >= 50)
    # By the means' deviations: the confidence band of two seeds may be ten times as wide.
    spreads = [spread(values) for line in lines.values() for values in line.values()]
    fit(axes.yaxis, label(records, metric), *reach(spreads, label(records, metric)))
    axes.set_title(f"{problem}; band: 95 % confidence interval", fontsize=10)
    legend(axes, len(lines) > 6)
    return figure


def _swept(records: list[Record], over: tuple[str, ...]) -> str:
    """The one key of which some method's runs have several numbers: what tells methods apart is no sweep."""
    found: dict[tuple[str, str], set[float]] = {}
    for record in records:
        for key, value in flattened(record).items():
            if key != "seed" and key not in over and _is_number(value):
                found.setdefault((record["names"]["method"], key), set()).add(value)
    swept = sorted({key for (_, key), values in found.items() if len(values) > 1})
    if len(swept) != 1:
        what = f"several were: {', '.join(swept)}" if swept else "none was"
        raise ValueError(f"--x: name the option that was swept ({what})")
    return swept[0]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
