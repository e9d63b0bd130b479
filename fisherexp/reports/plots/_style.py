"""Colors, markers and axes that all figures share: told apart by the color-blind and in print."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from fisherexp.reports.comparison import headings
from fisherexp.reports.grouping import Record, Row
from fisherexp.reports.spread import Spread

# Okabe and Ito's palette without its yellow, which is lost on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
REFERENCE = "#777777"  # color of reference models
PALEST = 0.45  # share of white in the last shade of a method's color
LINES = ("-", "--", "-.", ":")
MANY = 24


def looks(names: Iterable[str], methods: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """Name -> color, marker and line style. A method has one color, and each of its variants ('ssd alpha=0.5') a shade
    of it; reference models, '(before)' and '(oracle)', are gray.

    methods: all that further figures show, so that each keeps its color from one to the next.
    """
    names = sorted(names)
    variants: dict[str, list[str]] = {}
    for name in names:
        variants.setdefault(name.partition(" ")[0], []).append(name)
    colored = sorted({name for name in (*variants, *methods) if not name.startswith("(")})
    found = {}
    for i, name in enumerate(names):
        method = name.partition(" ")[0]
        color, line = REFERENCE, "-"
        if method in colored:
            place, alike = colored.index(method), variants[method]
            color = _paler(COLORS[place % len(COLORS)], PALEST * alike.index(name) / max(len(alike) - 1, 1))
            line = LINES[(place // len(COLORS) + alike.index(name)) % len(LINES)]
        found[name] = {"color": color, "marker": MARKERS[i % len(MARKERS)], "linestyle": line}
    return found


def _paler(color: str, share: float) -> str:
    """`color` mixed with so much white."""
    parts = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(part + share * (255 - part)):02X}" for part in parts)


def reach(spreads: Sequence[Spread], heading: str) -> tuple[float, float]:
    """From the lowest mean less its deviation to the highest and its own, as far as figures of their kind go: not below
    0 where no mean is, nor beyond 100 where no percentage is."""
    means = [s.mean for s in spreads]
    bars = [s.deviation if s.n > 1 and math.isfinite(s.deviation) else 0.0 for s in spreads]
    low, high = (pick(m + sign * b for m, b in zip(means, bars, strict=True)) for pick, sign in ((min, -1), (max, 1)))
    if min(means) >= 0:
        low = max(low, 0.0)
    return low, min(high, 100.0) if "%" in heading and max(means) <= 100 else high


def fit(axis: Any, heading: str, low: float, high: float, logarithmic: bool = False) -> None:
    """Limits and ticks of a matplotlib axis around figures from low to high: room around a single value, nothing below
    0 where no figure is, no tick beyond 0 and 100 of a percentage. logarithmic: of figures above 0."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return
    if logarithmic:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        limits = low / 1.4, high * 1.4
    else:
        percent = "%" in heading and low >= 0 and high <= 100
        least = 5.0 if percent else 0.2 * max(abs(low), abs(high)) or 1.0
        room = max(0.06 * (high - low), (least - (high - low)) / 2)
        bottom, top = (0.0, 100.0) if percent else (0.0 if low >= 0 else -math.inf, math.inf)
        below, above = max(low - room, bottom), min(high + room, top)
        limits = min(below, max(above - least, bottom)), max(above, min(below + least, top))  # a side that was cut
        rim = 0.03 * (limits[1] - limits[0])  # so that a marker at the very end is seen whole
        limits = limits[0] - rim * (low >= 0 and limits[0] == 0), limits[1] + rim * (limits[1] == top)
    axis.axes.set(**{f"{axis.axis_name}lim": limits})
    if not logarithmic:
        ends = (0.0 if low >= 0 else -math.inf), (100.0 if percent else math.inf)
        axis.set_ticks(
            [tick for tick in axis.get_majorticklocs() if ends[0] <= tick <= ends[1] and limits[0] <= tick <= limits[1]]
        )


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
