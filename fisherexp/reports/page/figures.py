"""The figures a set of runs gives rise to: every kind of plot, for every problem that has what it needs."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fisherexp.reports.grouping import Record
from fisherexp.reports.plots import Request, kinds
from fisherexp.reports.records import Damaged

MOST = 12  # figures on a page; further ones are a command away
DPI = 100


@dataclass(frozen=True)
class Figure:
    """One figure as PNG."""

    kind: str
    description: str
    png: bytes


def figures(records: list[Record], over: Sequence[str]) -> tuple[list[Figure], dict[Path, str]]:
    """At most MOST of them, problems with most runs first; and files that cannot be read -> what is wrong with them."""
    problems: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        problems.setdefault(tuple(record["names"][key] for key in ("data", "model", "scenario")), []).append(record)
    found: list[Figure] = []
    damaged: dict[Path, str] = {}
    for some in sorted(problems.values(), key=len, reverse=True):
        for name, kind in kinds().items():
            if len(found) == MOST:
                return found, damaged
            try:
                drawn = kind.draw(some, Request(over=tuple(over)))
            except ValueError:  # these runs do not have what this kind shows
                continue
            except Damaged as error:
                damaged[error.file] = error.reason
                continue
            found.append(Figure(name, kind.description, _png(drawn)))
    return found, damaged


def _png(figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()
