"""The figures that the runs of one problem give rise to: every kind of plot that finds what it needs."""

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


def figures(
    records: list[Record], over: Sequence[str], methods: Sequence[str], most: int = MOST
) -> tuple[list[Figure], dict[Path, str]]:
    """At most `most` of one problem's runs; and files that cannot be read -> what is wrong with them.

    methods: all that the page shows, so that each has one color in all figures.
    """
    found: list[Figure] = []
    damaged: dict[Path, str] = {}
    for name, kind in kinds().items():
        if len(found) >= most:
            break
        try:
            drawn = kind.draw(records, Request(over=tuple(over), methods=tuple(methods)))
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
