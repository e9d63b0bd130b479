"""A comparison as text, for a terminal or as markdown: a row per experiment, mean ± deviation over its repetitions."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape as html_escape
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fisherexp.reports.caption import CHANGED, SIGNIFICANCE
from fisherexp.reports.comparison import Cell, Column, Comparison, compare
from fisherexp.reports.grouping import Record
from fisherexp.reports.spread import Spread, spread
from fisherexp.reports.summary import format_metric, format_spread

Shown = Literal["deviation", "interval"]


@dataclass(frozen=True, repr=False)
class Grid:
    """A table as text: headings (may hold line breaks), rows of cells; the first `labels` columns are words. At a
    prompt it shows itself as a table, in a notebook as an HTML one.

    bold: (row, column) of the cells to stress.
    """

    title: str
    headings: list[str]
    labels: int
    cells: list[list[str]]
    notes: list[str]
    bold: frozenset[tuple[int, int]] = frozenset()

    def __repr__(self) -> str:
        return plain(self)

    def _repr_html_(self) -> str:
        return html(self)


def grid(
    records: list[Record],
    over: Sequence[str] = (),
    columns: str | Sequence[str] | None = None,
    metrics: Sequence[str] = (),
    with_references: bool = False,
    shown: Shown = "deviation",
    by: Sequence[str] = (),
    baseline: str | None = None,
) -> Grid:
    """The table of some records; arguments and errors as in `compare`."""
    columns = [columns] if isinstance(columns, str) else list(columns or ())
    return formatted(compare(records, by, columns, over, metrics, with_references, baseline), shown)


def formatted(comparison: Comparison, shown: Shown = "deviation") -> Grid:
    """Its figures as text. Published figures stand in a line below ours.

    shown: what follows a mean: the sample standard deviation, or the half-width of the 95 % confidence interval.
    """
    made, words = comparison.columns, len(comparison.heads)
    counted = len({column.value for column in made}) <= 1
    heads = comparison.heads + ["n"] * counted
    heads += ["\n".join(filter(None, [column.value, column.heading])) for column in made]
    cells, bold = [], set()
    for line in comparison.lines:
        bold |= {(len(cells), words + counted + j) for j, cell in enumerate(line.cells) if cell.best}
        figures = [_figure(column, cell, shown) for column, cell in zip(made, line.cells, strict=True)]
        labels = list(line.labels)
        if labels and any(run.get("code_changed") for run in line.runs):
            labels[0] += f" {CHANGED}"
        cells.append([*labels, *[str(sum(line.counts))] * counted, *figures])
        if any(cell.published for cell in line.cells):
            given = [_given(column.heading, cell) for column, cell in zip(made, line.cells, strict=True)]
            cells.append(["published" if h == "method" else "" for h in comparison.heads] + [""] * counted + given)
    mark = "± standard deviation" if shown == "deviation" else "± half-width of the 95 % confidence interval"
    return Grid(comparison.title, heads, words, cells, [f"mean {mark}", *comparison.notes], frozenset(bold))


def mean_and_deviation(heading: str, values: list[float], shown: Shown = "deviation") -> str:
    """`99.1 ± 0.2`; no ± for a single value, nothing for none."""
    found = spread(values)
    return _text(heading, found, shown) if found else ""


def print_table(table: Grid) -> None:
    """Print it, with what its figures are. At a terminal too narrow for it, the columns follow in several tables."""
    console = Console()
    for part in within(table, console.width) if console.is_terminal else [table]:
        drawn = rendered(part)
        # A figure cut short is worse than a line too long: let the terminal wrap what does not fit.
        (console if _width(drawn) <= console.width else Console(width=_width(drawn))).print(drawn)
    for note in table.notes:
        console.print(note, style="dim", highlight=False, markup=False)


def within(table: Grid, width: int) -> list[Grid]:
    """Its columns in tables of at most `width` characters, each with the words of the rows and one figure or more."""
    words, figures = list(range(table.labels)), list(range(table.labels, len(table.headings)))
    parts: list[list[int]] = [[]]
    for figure in figures:
        if parts[-1] and _width(rendered(_columns(table, [*words, *parts[-1], figure]))) > width:
            parts.append([])
        parts[-1].append(figure)
    return [_columns(table, [*words, *part]) for part in parts]


def _columns(table: Grid, kept: list[int]) -> Grid:
    """Some of its columns."""
    places = {column: place for place, column in enumerate(kept)}
    bold = frozenset((row, places[column]) for row, column in table.bold if column in places)
    cells = [[line[column] for column in kept] for line in table.cells]
    return replace(table, headings=[table.headings[column] for column in kept], cells=cells, bold=bold)


def _width(drawn: Table) -> int:
    return Console(width=10_000).measure(drawn).maximum


def plain(table: Grid) -> str:
    """As lines of text without colors, as wide as it needs to be."""
    console = Console(width=10_000, file=io.StringIO(), force_jupyter=False, force_terminal=False, color_system=None)
    console.print(rendered(table))
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    return "\n".join([*lines, *table.notes])


def html(table: Grid) -> str:
    """As an HTML table, with its title and notes; no style of its own."""
    text = html_escape
    heads = "".join(
        f'<th class="{"word" if i < table.labels else "figure"}">{text(" ".join(heading.split()))}</th>'
        for i, heading in enumerate(table.headings)
    )
    lines = []
    for i, line in enumerate(table.cells):
        cells = [f"<strong>{text(c)}</strong>" if (i, j) in table.bold else text(c) for j, c in enumerate(line)]
        kinds = ["word" if j < table.labels else "figure" for j in range(len(line))]
        lines.append("".join(f'<td class="{kind}">{cell}</td>' for kind, cell in zip(kinds, cells, strict=True)))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    notes = "".join(f"<li>{text(note)}</li>" for note in table.notes)
    title = f"<p>{text(table.title)}</p>" if table.title else ""
    drawn = (
        f'<div class="wide"><table class="summary"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
    )
    return f'{title}{drawn}<ul class="notes">{notes}</ul>'


def rendered(table: Grid) -> Table:
    """As a rich table."""
    look = {"title_justify": "left", "title_style": "bold", "box": SIMPLE_HEAD, "pad_edge": False}
    drawn = Table(title=table.title, collapse_padding=True, **look)
    for i, heading in enumerate(table.headings):
        if heading == "options":
            drawn.add_column(heading, overflow="fold", min_width=11)
        else:
            drawn.add_column(heading, justify="left" if i < table.labels else "right", no_wrap=True)
    for i, line in enumerate(table.cells):
        cells = map(escape, line)
        drawn.add_row(*(f"[bold]{cell}[/bold]" if (i, j) in table.bold else cell for j, cell in enumerate(cells)))
    return drawn


def markdown(table: Grid) -> str:
    """As a markdown table with its title and notes."""
    heads = [" ".join(heading.split()) for heading in table.headings]
    rule = ["---" if i < table.labels else "---:" for i in range(len(heads))]
    body = [
        [f"**{cell}**" if (i, j) in table.bold else cell for j, cell in enumerate(line)]
        for i, line in enumerate(table.cells)
    ]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in body]
    lines = ["| " + " | ".join(line) + " |" for line in (heads, rule, *escaped)]
    return "\n".join([f"**{table.title}**", "", *lines, "", "  \n".join(table.notes)])


def _figure(column: Column, cell: Cell, shown: Shown) -> str:
    if cell.spread is None:
        return ""
    star = "*" if cell.p is not None and cell.p < SIGNIFICANCE else ""
    return _text(column.heading, cell.spread, shown) + star


def _text(heading: str, found: Spread, shown: Shown) -> str:
    if found.n == 1:
        return format_metric(heading, found.mean)
    return format_spread(heading, found.mean, found.deviation if shown == "deviation" else found.half_width)


def _given(heading: str, cell: Cell) -> str:
    return " ± ".join(format_metric(heading, figure) for figure in cell.published) if cell.published else ""
