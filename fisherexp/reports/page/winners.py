"""Which method is best in what, and by how much: what a table says, for a person who reads no further."""

from collections.abc import Sequence
from dataclasses import dataclass

from fisherexp.reports.comparison import Comparison, Line
from fisherexp.reports.spread import Spread
from fisherexp.reports.summary import format_metric, format_spread

MOST = 8  # columns a reader is told of; the table has them all
AS_GOOD = 3  # names a cell spells out


@dataclass(frozen=True)
class Winner:
    """One metric, in words. best: methods with the best mean; next: the first that is worse, '' where none is.
    verdict: how the lead compares with the deviations."""

    metric: str
    goal: str
    best: str
    value: str
    next: str
    next_value: str
    lead: str
    verdict: str


def winners(comparison: Comparison) -> list[Winner]:
    """One for each of the first MOST columns whose metric has a direction and whose rows differ in it."""
    ours = [line for line in comparison.lines if not line.reference]
    found = []
    for place, column in enumerate(comparison.columns):
        placed = [(line, line.cells[place].spread) for line in ours if line.cells[place].spread]
        if not column.better or len({spread.mean for _, spread in placed}) < 2:
            continue
        sign = -1 if column.better == "higher" else 1
        placed.sort(key=lambda pair: sign * pair[1].mean)
        top = placed[0][1]
        tied = [line for line, spread in placed if spread.mean == top.mean]
        second, other = placed[len(tied)]
        heading = " ".join(f"{column.value} {column.heading}".split())
        found.append(
            Winner(
                metric=heading,
                goal=column.better,
                best=_names(tied),
                value=_figure(column.heading, top),
                next=_names([second]),
                next_value=_figure(column.heading, other),
                lead=format_metric(column.heading, abs(top.mean - other.mean)),
                verdict=_verdict(top, other),
            )
        )
    return found[:MOST]


def _names(lines: Sequence[Line]) -> str:
    shown = [" ".join(filter(None, line.labels)) for line in lines[:AS_GOOD]]
    more = f" and {len(lines) - AS_GOOD} more" if len(lines) > AS_GOOD else ""
    return ", ".join(shown) + more


def _figure(heading: str, found: Spread) -> str:
    if found.n == 1:
        return format_metric(heading, found.mean)
    return format_spread(heading, found.mean, found.deviation)


def _verdict(best: Spread, other: Spread) -> str:
    if best.n == 1 or other.n == 1:
        return "one run: how far it scatters is not known"
    apart = abs(best.mean - other.mean) > best.deviation + other.deviation
    return "more than both deviations" if apart else "within the deviations"
