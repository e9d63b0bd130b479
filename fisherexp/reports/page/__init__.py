"""One HTML page of finished runs that needs no network: summary, figures, a sortable table, a page for each run.

What a script shows (the runs) lies in the page as compressed JSON; the summary and the figures are plain HTML.
"""

import base64
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from fisherexp.files import write_text
from fisherexp.reports.comparison import compare, headings
from fisherexp.reports.grouping import Record
from fisherexp.reports.page.figures import Figure, figures
from fisherexp.reports.page.run import CURVES, run_data
from fisherexp.reports.records import is_trial
from fisherexp.reports.table import formatted, html

# Pictures that runs left in their folders are shown until they fill this much of the page.
PICTURE_BYTES = 6 * 2**20


@dataclass(frozen=True)
class Written:
    """size: of the page, in bytes. damaged: further files, of the runs shown, that cannot be read -> what is wrong."""

    size: int
    damaged: dict[Path, str]


def page(records: list[Record], over: Sequence[str], damaged: Mapping[Path, str], to: Path) -> Written:
    """Write the page; `damaged` says which files could not be read. Raises ValueError for keys that no run has."""
    grid = formatted(compare(records, over=over, with_references=True))
    budget, runs, torn = PICTURE_BYTES, [], {}
    for record in records:
        data = run_data(record, budget)
        budget -= sum(len(picture["data"]) for picture in data["pictures"])
        if "damaged" in data:
            torn[Path(record["folder"]) / CURVES] = data["damaged"]
        runs.append(data | {"trial": is_trial(record)})
    drawn, unreadable = figures(records, over)
    torn |= unreadable
    content = {"headings": {k: " ".join(v.split()) for k, v in headings(records).items()}, "runs": runs}
    packed = base64.b64encode(zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 6)).decode()
    text = _asset("page.html")
    for name, value in {
        "CSS": _asset("page.css"),
        "JS": _asset("page.js"),
        "ABOUT": _about(records, {**damaged, **torn}),
        "SUMMARY": html(grid),
        "FIGURES": "".join(map(_figure, drawn)),
        "DATA": packed,
    }.items():
        text = text.replace(f"<!--{name}-->", value)
    write_text(to, text)
    return Written(to.stat().st_size, torn)


def _about(records: list[Record], damaged: Mapping[Path, str]) -> str:
    methods = sorted({record["names"]["method"] for record in records})
    data = sorted({record["names"]["data"] for record in records})
    many = f"{len(records)} run{'s' if len(records) > 1 else ''}"
    words = f"{many} of {', '.join(methods)} on {', '.join(data)}; written {time.strftime('%Y-%m-%d %H:%M')}"
    broken = "".join(f"<li>{escape(str(file))}: {escape(reason)}</li>" for file, reason in damaged.items())
    warning = f'<div class="warning"><p>Files that could not be read:</p><ul>{broken}</ul></div>' if broken else ""
    return f"<p>{escape(words)}</p>{warning}"


def _figure(figure: Figure) -> str:
    source = base64.b64encode(figure.png).decode()
    words = escape(f"{figure.kind}: {figure.description}")
    return f'<figure><img alt="{words}" src="data:image/png;base64,{source}"><figcaption>{words}</figcaption></figure>'


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
