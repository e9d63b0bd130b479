"""Quality against cost: time, passes, memory or numbers trained, with the front of undominated methods."""

from typing import Any

from fisherexp.reports.grouping import Record, rows
from fisherexp.reports.plots import Request
from fisherexp.reports.plots._front import undominated
from fisherexp.reports.plots._style import fit, label, one_problem, reach
from fisherexp.reports.plots.trade_off import PAIRS, axes_of, direction, scattered
from fisherexp.reports.spread import spread

COSTS = {
    "passes": "samples sent forward and backward",
    "seconds": "time (s)",
    "memory": "peak memory (MiB)",
    "trained_numbers": "numbers trained",
}
# Metrics that not every record has.
RECORDED = {"memory": "memory_mib", "trained_numbers": "trained_numbers"}


def draw(records: list[Record], request: Request) -> Any:
    """x: one of COSTS, by default passes, which no busy machine changes. y: a metric, by default the wing's."""
    problem = one_problem(records, request.over)
    cost = request.x or "passes"
    if cost not in COSTS:
        raise ValueError(f"--x: a cost is one of {', '.join(COSTS)}")
    if cost in RECORDED and (
        lacking := next((r for r in records if RECORDED[cost] not in r["metrics"]["after"]), None)
    ):
        raise ValueError(f"--x: a run of '{lacking['names']['method']}' does not say its {COSTS[cost]}")
    metric = request.y or axes_of(records, Request(), PAIRS)[1]
    better = direction(records, metric)
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
    if cost in ("passes", "trained_numbers"):  # of seconds '40m' would read as minutes
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return figure


def _cost(run: Record, cost: str) -> float:
    after = run["metrics"]["after"]
    if cost in RECORDED:
        return after[RECORDED[cost]]
    if cost == "passes":
        return after.get("forward_samples", 0.0) + after.get("backward_samples", 0.0)
    return after.get("seconds", run["seconds"])
