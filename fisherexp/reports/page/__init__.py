"""One HTML page of finished runs that needs no network: what was compared, and for each problem who is best, the table
and the figures; then a sortable list of runs, and a page for each.

What a script shows (the runs) lies in the page as compressed JSON; everything before is plain HTML.
"""

import base64
import json
import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from fisherexp.files import write_text
from fisherexp.reports.comparison import compare, headings
from fisherexp.reports.grouping import Record, require, rows
from fisherexp.reports.page.figures import MOST
from fisherexp.reports.page.run import CURVES, run_data
from fisherexp.reports.page.section import Section, problems, section
from fisherexp.reports.records import is_trial

# Pictures that runs left in their folders are shown until they fill this much of the page.
PICTURE_BYTES = 6 * 2**20
SEEDS = 10  # that the page's first lines name


@dataclass(frozen=True)
class Written:
    """size: of the page, in bytes. damaged: further files, of the runs shown, that cannot be read -> what is wrong."""

    size: int
    damaged: dict[Path, str]


def page(records: list[Record], over: Sequence[str], damaged: Mapping[Path, str], to: Path) -> Written:
    """Write the page; `damaged` says which files could not be read. Raises ValueError for keys that no run has."""
    require(records, over)
    budget, runs, torn = PICTURE_BYTES, [], {}
    together = problems(records, over)
    methods = sorted({record["names"]["method"] for record in records})
    options = {id(run): row.options for some in together for row in rows(some) for run in row.runs}
    for record in records:
        data = run_data(record, budget)
        budget -= sum(len(picture["data"]) for picture in data["pictures"])
        if "damaged" in data:
            torn[Path(record["folder"]) / CURVES] = data["damaged"]
        runs.append(data | {"trial": is_trial(record), "options": options[id(record)]})
    sections: list[Section] = []
    for number, some in enumerate(together, start=1):
        left = MOST - sum(section.drawn for section in sections)
        sections.append(section(some, over, methods, number, left))
        torn |= sections[-1].damaged
    content = {"headings": {k: " ".join(v.split()) for k, v in headings(records).items()}, "runs": runs}
    packed = base64.b64encode(zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 6)).decode()
    text = _asset("page.html")
    for name, value in {
        "CSS": _asset("page.css"),
        "JS": _asset("page.js"),
        "ABOUT": _about(records, sections, {**damaged, **torn}),
        "SECTIONS": "\n".join(f'<section id="{one.anchor}">{one.html}</section>' for one in sections),
        "DATA": packed,
    }.items():
        text = text.replace(f"<!--{name}-->", value)
    write_text(to, text)
    return Written(to.stat().st_size, torn)


def _about(records: list[Record], sections: Sequence[Section], damaged: Mapping[Path, str]) -> str:
    """What was compared, in a sentence; links to the problems where there are several."""
    settings = Counter(row.labels[-1] for some in problems(records, ()) for row in rows(some))
    names = ", ".join(f"{method} ({n} settings)" if n > 1 else method for method, n in sorted(settings.items()))
    seeds = sorted({record["seed"] for record in records})
    many = f"{len(records)} run{'s' if len(records) > 1 else ''}"
    of = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds[:SEEDS]))}{' …' if len(seeds) > SEEDS else ''}"
    words = f'<p class="lead"><strong>Compared:</strong> {escape(names)}.</p>'
    words += f'<p class="faint">{many}, {of}; written {time.strftime("%Y-%m-%d %H:%M")}</p>'
    if len(sections) > 1:
        links = "".join(f'<li><a href="#{one.anchor}">{escape(one.title)}</a></li>' for one in sections)
        words += f"<ul>{links}</ul>"
    broken = "".join(f"<li>{escape(str(file))}: {escape(reason)}</li>" for file, reason in damaged.items())
    warning = f'<div class="warning"><p>Files that could not be read:</p><ul>{broken}</ul></div>' if broken else ""
    return words + warning


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
