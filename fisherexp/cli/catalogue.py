"""`list` and `methods`: what there is to choose from, in the terminal and as a page."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fisherexp.cli.options import Search

WIDE = 120  # characters of a terminal in which four columns can be read


def list_(search_path: Search = []) -> None:
    """What there is to choose from: methods by wing with the line that runs each, scenarios, data, models, audits."""
    from fisherexp.catalogue import GROUPS, at_home, by_wing, entries

    console = Console()
    methods = {entry.file: entry for entry in entries("method", search_path)}
    for wing, files in by_wing(methods).items():
        found = [methods[file] for file in files]
        rows = [(f"python run.py method={e.name}", e.description, f"on {at_home(e)}", e.paper) for e in found]
        console.print(_listed(wing.replace("_", " "), rows, console.width))
        console.print()
    for group in GROUPS:
        if group != "method":
            rows = [(entry.name, entry.description, entry.paper) for entry in entries(group, search_path)]
            console.print(_listed(f"{group}=", rows, console.width))
            console.print()


def methods(
    to: Annotated[Path, typer.Option("--to", "-o", help="The file to write: .html or .md.")] = Path("methods.html"),
    search_path: Search = [],
) -> None:
    """The catalogue of methods: one file that needs no network, a card per method with its paper, equation, options."""
    from fisherexp.files import write_text
    from fisherexp.handbook import cards, page, text

    found = cards(search_path)
    if to.suffix == ".html":
        write_text(to, page(found))
    elif to.suffix == ".md":
        write_text(to, text(found, f"python -m fisherexp methods -o {to}"))
    else:
        print(f"{to}: the catalogue is written as .html or .md", file=sys.stderr)
        raise typer.Exit(2)
    print(f"wrote {to} ({sum(map(len, found.values()))} methods)")


def _listed(title: str, rows: list[tuple[str, ...]], width: int) -> Table:
    """A table without lines; its first column is never broken. Where that leaves too little for the others, what they
    say stands below it."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
    if width < WIDE:
        for name, *rest in rows:
            below = Padding(escape("; ".join(filter(None, rest))), (0, 0, 0, 4))
            table.add_row(Group(Text(name, no_wrap=True), below))
        return table
    for number, _ in enumerate(rows[0]):
        table.add_column(overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*map(escape, row))
    return table
