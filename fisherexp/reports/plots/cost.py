"""Quality against cost: time, forward and backward passes, or memory, with the front of undominated methods."""

from typing import Any

from fisherexp.reports.grouping import Record, rows
from fisherexp.reports.plots import Request
from fisherexp.reports.plots._style import fit, label, one_problem, reach
from fisherexp.reports.plots.trade_off import PAIRS, axes_of, scattered
from fisherexp.reports.spread import spread

COSTS = {
    "passes": "samples sent forward and backward",
    "seconds": "time (s)",
    # Of the process: in a sweep within one process every run has at least the peak of those before it.
    "memory": "peak memory of the process so far (MiB)",
}


def draw(records: list[Record], request: Request) -> Any:
    """x: one of COSTS, by default passes, which no busy machine changes. y: a metric, by default the wing's."""
    problem = one_problem(records, request.over)
    cost = request.x or "passes"
    if cost not in COSTS:
        raise ValueError(f"--x: a cost is one of {', '.join(COSTS)}")
    metric = request.y or axes_of(records, Request(), PAIRS)[1]
    better = next((r["better"][metric] for r in records if metric in r.get("better", {})), None)
    points = [
        (row, spread([_cost(run, cost) for run in row.runs]), spread(row.values(metric)))
        for row in rows(records, request.over)
    ]
    means = [(paid.mean, got.mean) for _, paid, got in points if paid and got]
    if not means:
        raise ValueError(f"no run has a metric '{metric}'")
    from matplotlib.ticker import EngFormatter

    figure, axes = scattered(points, request.methods)
    if better:
        front = undominated(means, better)
        axes.plot(*zip(*front, strict=True), color="0.6", linewidth=1, drawstyle="steps-post", zorder=0)
    axes.set(xlabel=COSTS[cost], ylabel=label(records, metric))
    costs, qualities = [paid for paid, _ in means], [got for _, _, got in points if got]
    fit(axes.xaxis, COSTS[cost], min(costs), max(costs), min(costs) > 0 and max(costs) / min(costs) >= 20)
    fit(axes.yaxis, label(records, metric), *reach(qualities, label(records, metric)))
    axes.set_title(problem, fontsize=10)
    if cost == "passes":  # of seconds '40m' would read as minutes
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return figure


def undominated(points: list[tuple[float, float]], better: str) -> list[tuple[float, float]]:
    """Points (cost, quality) of which no other costs less or as much and is better, by rising cost."""
    sign = 1 if better == "higher" else -1
    front: list[tuple[float, float]] = []
    for cost, quality in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not front or sign * quality > sign * front[-1][1]:
            front.append((cost, quality))
    return front


def _cost(run: Record, cost: str) -> float:
    after = run["metrics"]["after"]
    if cost == "passes":
        return after.get("forward_samples", 0.0) + after.get("backward_samples", 0.0)
    return after.get("seconds", run["seconds"]) if cost == "seconds" else run["memory"]["resident_mib"]
