"""Colors, markers and axes that all figures share: told apart by the color-blind and in print."""

from collections.abc import Iterable, Sequence
from typing import Any

from fisherexp.reports.comparison import headings
from fisherexp.reports.grouping import Record, Row

# Okabe and Ito's palette without its yellow, which is lost on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
LINES = ("-", "--", "-.", ":")
MANY = 24


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Name -> color, marker and line style, all three different from its neighbors'; the same for the same names."""
    found = {}
    for i, name in enumerate(sorted(names)):
        line = LINES[i // len(COLORS) % len(LINES)]
        found[name] = {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)], "linestyle": line}
    return found


def named(found: Sequence[Row]) -> dict[str, Row]:
    """Rows by what a legend calls them. Raises ValueError for more than MANY: nobody tells so many lines apart."""
    if len(found) > MANY:
        raise ValueError(f"{len(found)} lines are too many for one figure: choose some, or pool a key with --over")
    return {f"{row.labels[-1]} {row.options}".strip(): row for row in found}


def label(records: list[Record], metric: str) -> str:
    """A metric's heading on one line, with its unit."""
    known = {"seconds": "time (s)", "ece": "calibration error (%)"}
    heading = " ".join(headings(records).get(metric, metric.replace("_", " ")).split())
    text = known.get(metric, heading)
    return text.replace(" %", " (%)") if text.endswith(" %") else text


def legend(axes: Any, outside: bool) -> None:
    """Inside the axes, or beside them where it would hide too much."""
    if not outside:
        axes.legend(frameon=False, fontsize=8)
    else:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def one_problem(records: list[Record], over: Sequence[str] = ()) -> str:
    """`digits, small_cnn, continual`: what all records have in common. Raises ValueError if they are of several."""
    shared = {}
    for key in ("data", "model", "scenario"):
        names = sorted({record["names"][key] for record in records})
        if len(names) > 1 and key not in over:
            raise ValueError(f"runs of several kinds of {key} cannot share a figure: choose, e.g. {key}={names[0]}")
        shared[key] = "/".join(names)
    return ", ".join(shared.values())
