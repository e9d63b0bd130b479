"""What the page says of one problem: who is best and by how much, the table, the figures."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

from fisherexp.reports.comparison import Comparison, compare
from fisherexp.reports.grouping import Record, has_key
from fisherexp.reports.page.figures import Figure, figures
from fisherexp.reports.page.winners import Winner, winners
from fisherexp.reports.table import formatted, html

PROBLEM = ("data", "model", "scenario")
REFERENCES = "(before): the model that methods start from; (oracle): what the scenario compares with"


@dataclass(frozen=True)
class Section:
    """html: of one problem, for an element whose id is `anchor`. damaged: files that cannot be read -> why."""

    anchor: str
    title: str
    html: str
    drawn: int
    damaged: Mapping[Path, str]


def problems(records: Sequence[Record], over: Sequence[str]) -> list[list[Record]]:
    """Records of one data set, model and scenario together, but for those pooled; most runs first."""
    found: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        found.setdefault(tuple(record["names"][key] for key in PROBLEM if key not in over), []).append(record)
    return sorted(found.values(), key=len, reverse=True)


def section(records: list[Record], over: Sequence[str], methods: Sequence[str], number: int, most: int) -> Section:
    """Of the runs of one problem, with at most `most` figures. methods: of the whole page, whose colors they keep."""
    known = [key for key in over if any(has_key(record, key) for record in records)]
    comparison = _references_last(compare(records, over=known, with_references=True))
    drawn, damaged = figures(records, known, methods, most)
    names = ["/".join(sorted({record["names"][key] for record in records})) for key in PROBLEM]
    title = " · ".join(name for name in names if name != "none")
    ours = [line for line in comparison.lines if not line.reference]
    parts = [f"<h2>{escape(title)}</h2>"] + [_best(winners(comparison))] * (len(ours) > 1) + ["<h3>Every method</h3>"]
    parts.append(html(replace(formatted(comparison), title="")))
    if drawn:
        parts.append(f'<h3>Figures</h3><div class="figures">{"".join(map(_figure, drawn))}</div>')
    return Section(f"problem{number}", title, "\n".join(parts), len(drawn), damaged)


def _references_last(comparison: Comparison) -> Comparison:
    """What was compared comes first on a page; what it is compared with, below."""
    lines = sorted(comparison.lines, key=lambda line: line.reference)
    notes = comparison.notes + [REFERENCES] * any(line.reference for line in lines)
    return replace(comparison, lines=lines, notes=notes)


def _best(found: Sequence[Winner]) -> str:
    if not found:
        return '<p class="faint">No metric with a direction tells these rows apart.</p>'
    signs = {"higher": "↑ higher is better", "lower": "↓ lower is better"}
    lines = [
        f'<tr><th scope="row">{escape(one.metric)} <span class="faint">{signs[one.goal]}</span></th>'
        f'<td><strong>{escape(one.best)}</strong></td><td class="figure">{escape(one.value)}</td>'
        f'<td>{escape(one.next)}</td><td class="figure">{escape(one.next_value)}</td>'
        f'<td class="figure">{escape(one.lead)}</td><td class="faint">{escape(one.verdict)}</td></tr>'
        for one in found
    ]
    heads = '<th>metric</th><th>best</th><th class="figure">its mean</th><th>next</th><th class="figure">its mean</th>'
    heads += '<th class="figure">lead</th><th>the lead is</th>'
    return (
        '<h3>Who is best, and by how much</h3><div class="wide"><table class="best">'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _figure(figure: Figure) -> str:
    source = base64.b64encode(figure.png).decode()
    words, command = escape(figure.description), escape(f"python -m fisherexp plot {figure.kind}")
    picture = f'<img class="plot" alt="{words}" src="data:image/png;base64,{source}">'
    return f"<figure>{picture}<figcaption>{words} <code>{command}</code></figcaption></figure>"
