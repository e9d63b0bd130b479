"""`table`, `plot`, `report`, `selection`: what finished runs have found."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fisherexp.cli.options import Filters, Metrics, Outputs, Over, Runs, Trials


def table(
    filters: Filters = None,
    output_dir: Runs = Path("outputs"),
    rows: Annotated[list[str], typer.Option(help="Keys that label the rows, e.g. method,method.alpha.")] = [],
    cols: Annotated[list[str], typer.Option("--cols", "--columns", help="Keys whose values get columns.")] = [],
    over: Over = [],
    metrics: Metrics = [],
    references: Annotated[bool, typer.Option(help="Rows for the source model and the oracle.")] = False,
    baseline: Annotated[str | None, typer.Option(help="Compare with this method by a paired t-test.")] = None,
    interval: Annotated[bool, typer.Option("--ci", help="± the 95 % confidence interval, not the deviation.")] = False,
    to: Annotated[
        list[Path], typer.Option("--to", "-o", help="Write a file: .md, .tex, .csv or .parquet; may be repeated.")
    ] = [],
    markdown: Annotated[bool, typer.Option(help="Print markdown.")] = False,
    trials: Trials = False,
) -> None:
    """Mean ± standard deviation over seeds of every experiment in the output folder."""
    from fisherexp.reports import formats
    from fisherexp.reports import table as tables
    from fisherexp.reports.comparison import compare

    shown, found = _shown(output_dir, filters, trials)
    if baseline is not None and not baseline.strip():
        _refuse("--baseline names no method: leave it out to compare with none")
    if shown:
        try:
            comparison = compare(shown, _keys(rows), _keys(cols), _keys(over), _keys(metrics), references, baseline)
            how = "interval" if interval else "deviation"
            for file in to:
                formats.save(comparison, file, how)
        except ValueError as error:
            _refuse(error)
        made = tables.formatted(comparison, how)
        if to:
            print(f"wrote {', '.join(map(str, to))}")
        elif markdown:
            print(tables.markdown(made))
        else:
            tables.print_table(made)
    _leave(found.damaged, unwritten=bool(to) and not shown)


def plot(
    kind: Annotated[str, typer.Argument(help="What to draw; 'list' names the kinds.")],
    filters: Filters = None,
    output_dir: Runs = Path("outputs"),
    to: Annotated[
        list[Path], typer.Option("--to", "-o", help="Write a file: .png or .pdf; may be repeated; by default KIND.png.")
    ] = [],
    x: Annotated[str | None, typer.Option(help="Metric or config key on the horizontal axis.")] = None,
    y: Annotated[str | None, typer.Option(help="Metric on the vertical axis.")] = None,
    over: Over = [],
    trials: Trials = False,
) -> None:
    """Draw finished runs: trade-offs, sweeps, corruptions, forgetting, collapse, Fisher mass, cost."""
    from fisherexp.figures import save
    from fisherexp.reports.grouping import require
    from fisherexp.reports.plots import Request, kind_named, kinds
    from fisherexp.reports.records import Damaged

    if kind == "list":
        known = kinds()
        width = max(map(len, known))
        print("\n".join(f"{name:<{width}}  {about.description}" for name, about in known.items()))
        raise typer.Exit
    try:
        wanted = kind_named(kind)
    except ValueError as error:
        _refuse(error)
    shown, found = _shown(output_dir, filters, trials)
    if shown:
        try:
            require(shown, _keys(over))
            figure, files = wanted.draw(shown, Request(x, y, tuple(_keys(over)))), to or [Path(f"{kind}.png")]
            for file in files:
                save(figure, file)
        except ValueError as error:
            _refuse(error)
        except Damaged as error:
            _leave({**found.damaged, error.file: error.reason})
        print(f"wrote {', '.join(map(str, files))}")
    _leave(found.damaged, unwritten=not shown)


def report(
    filters: Filters = None,
    output_dir: Runs = Path("outputs"),
    to: Annotated[Path, typer.Option("--to", "-o", help="The page to write.")] = Path("report.html"),
    over: Over = [],
    trials: Trials = False,
) -> None:
    """Everything on one page that needs no network: table, figures, and a page for each run."""
    from fisherexp.reports.page import page

    if to.suffix != ".html" or to.is_dir():
        near = to.with_suffix(".html") if to.name else "report.html"
        _refuse(f"{to}: the report is a page, written to a file that ends in .html (-o {near})")
    shown, found = _shown(output_dir, filters, trials)
    if shown:
        try:
            written = page(shown, _keys(over), found.damaged, to)
        except ValueError as error:
            _refuse(error)
        print(f"wrote {to} ({written.size / 2**20:.1f} MiB, {len(shown)} run{'s' if len(shown) > 1 else ''})")
        found.damaged.update(written.damaged)
    _leave(found.damaged, unwritten=not shown)


def selection(
    output_dir: Outputs = Path("outputs"),
    markdown: Annotated[bool, typer.Option(help="Print markdown.")] = False,
) -> None:
    """Target accuracies of domain generalization, by DomainBed's three ways of choosing run and checkpoint."""
    from fisherexp.reports import table as tables
    from fisherexp.reports.records import is_trial, read_records
    from fisherexp.reports.selection import grids, selected

    rows = selected(record for record in read_records(output_dir).records if not is_trial(record))
    if not rows:
        print(f"no run in {output_dir} recorded checkpoints (callbacks=[domain_selection])")
        raise typer.Exit(1)
    for made in grids(rows):
        print(tables.markdown(made)) if markdown else tables.print_table(made)


def _shown(output_dir: Path, filters: list[str] | None, trials: bool) -> tuple[list[dict[str, Any]], Any]:
    """The records that are asked for; says which are left out, and exits with 2 for a wrong filter."""
    from fisherexp.reports.records import choose, left_out, nothing_found

    for text in filters or []:  # as a run is told
        if text.startswith("output_dir="):
            _refuse(f"{text} is no filter: write --output-dir {text.partition('=')[2]}")
    try:
        found = choose(output_dir, filters or [], trials)
    except ValueError as error:
        _refuse(error)
    if not found.records:
        print(nothing_found(output_dir, filters or []))
    if found.left_out:
        print(f"{left_out(found.left_out)} (--trials shows them)", file=sys.stderr if found.records else sys.stdout)
    return found.records, found


def _leave(damaged: Mapping[Path, str], unwritten: bool = False) -> None:
    """Names what could not be read; the exit status tells, too, and whether a file was left `unwritten`."""
    for file, reason in damaged.items():
        print(f"{file} cannot be read: {reason}", file=sys.stderr)
    raise typer.Exit(1 if damaged or unwritten else 0)


def _keys(texts: Iterable[str]) -> list[str]:
    """Options may be repeated or hold several keys with commas between them."""
    if any(not text.strip(" ,") for text in texts):
        _refuse("a list of keys or metrics is empty: name some, or leave the option out")
    return [key for text in texts for key in text.split(",") if key]


def _refuse(message: Any) -> None:
    print(message, file=sys.stderr)
    raise typer.Exit(2)
