"""Clean error along a continual stream: what each method has forgotten after every corruption, with deviations."""

from typing import Any

from fisherexp.figures import canvas
from fisherexp.reports.grouping import Record, rows
from fisherexp.reports.plots import Request
from fisherexp.reports.plots._style import legend, looks, named, one_problem
from fisherexp.reports.spread import spread

CLEAN = "clean"


def draw(records: list[Record], request: Request) -> Any:
    """Needs runs of a stream with clean stretches between its corruptions (scenario.clean=frozen or online)."""
    problem = one_problem(records, request.over)
    points = _stretches(records[0])
    clean = [metric for metric, name in points if name == CLEAN]
    if len(clean) < 2:
        raise ValueError("these runs have no clean stretches: run the stream with scenario.clean=frozen or online")
    # What came last before each look; of a stream that adapts on clean images there is none before it all.
    last = ["before", *(name for _, name in points[:-1])]
    ticks = [name.replace("_", " ") for name, (_, here) in zip(last, points, strict=True) if here == CLEAN]
    found = named(rows(records, request.over))
    figure, axes = canvas(size=(8.6, 4.6))
    for name, look in looks(found, request.methods).items():
        spreads = [spread(found[name].values(metric)) for metric in clean]
        kept = [(i, s) for i, s in enumerate(spreads) if s]
        places, means = [i for i, _ in kept], [s.mean for _, s in kept]
        axes.plot(places, means, **look, markersize=4, linewidth=1.2, label=name)
        low = [s.mean - (s.deviation if s.n > 1 else 0) for _, s in kept]
        high = [s.mean + (s.deviation if s.n > 1 else 0) for _, s in kept]
        axes.fill_between(places, low, high, color=look["color"], alpha=0.15, linewidth=0)
    axes.set_xticks(range(len(ticks)), ticks, rotation=40, ha="right", fontsize=8)
    axes.set(xlabel="adapted so far, up to", ylabel="error on clean images (%)")
    axes.set_title(problem, fontsize=10)
    axes.set_ylim(bottom=0)
    legend(axes, len(found) > 4)
    return figure


def _stretches(record: Record) -> list[tuple[str, str]]:
    """(metric, name of the stretch), in the order of the stream."""
    curve = [name for name in record["metrics"]["after"] if name.startswith("curve/")]
    curve.sort(key=lambda name: int(name.removeprefix("curve/").partition("_")[0]))  # there may be a thousand
    return [(name, name.partition("_")[2]) for name in curve]
