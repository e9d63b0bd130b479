"""`fisherexp …` and `python -m fisherexp …`: run, list, methods, check, contract, status, reproduce.

What shows finished runs (table, plot, report, selection) is in reports/commands.py.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fisherexp.reports.commands import Outputs, plot, report, selection, table

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Experiments with curvature-aware methods.")
Search = Annotated[
    list[str], typer.Option("--search-path", help="Further config directories: pkg://package.conf or a path.")
]
for command in (table, plot, report, selection):
    app.command()(command)
ANY_ARGUMENTS = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def main() -> None:
    """Entry point of the console script."""
    app()


@app.command(context_settings=ANY_ARGUMENTS, add_help_option=False)
def run(context: typer.Context) -> None:
    """Run one experiment, or a sweep with -m: the same as `python run.py` in a checkout."""
    from fisherexp.app import main as run_main

    sys.exit(run_main(context.args))


@app.command(name="list")
def list_(search_path: Search = []) -> None:
    """What there is to choose from: methods by wing with the line that runs each, scenarios, data, models, audits."""
    from fisherexp.catalogue import GROUPS, at_home, by_wing, entries

    console = Console()
    methods = {entry.file: entry for entry in entries("method", search_path)}
    for wing, files in by_wing(methods).items():
        found = [methods[file] for file in files]
        rows = [(f"python run.py method={e.name}", e.description, f"on {at_home(e)}", e.paper) for e in found]
        console.print(_listed(wing.replace("_", " "), rows))
        console.print()
    for group in GROUPS:
        if group != "method":
            rows = [(entry.name, entry.description, entry.paper) for entry in entries(group, search_path)]
            console.print(_listed(f"{group}=", rows))
            console.print()


@app.command()
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


def _listed(title: str, rows: list[tuple[str, ...]]) -> Table:
    """A table without lines; its first column is never broken."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
    for number, _ in enumerate(rows[0]):
        table.add_column(overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


@app.command()
def check(
    methods: Annotated[list[str] | None, typer.Argument(help="Only these.")] = None, search_path: Search = []
) -> None:
    """Compose and validate every method, scenario, data set and so on, without running anything."""
    from fisherexp.catalogue import check as check_one
    from fisherexp.catalogue import combinations, company, entries

    searched = [f"hydra.searchpath=[{','.join(search_path)}]"] if search_path else []
    trials = list(combinations(search_path, methods))
    if not methods:
        for entry in entries("data", search_path):
            trials.append(company(entry, search_path))
        trials += [company(entry, search_path) for entry in entries("model", search_path) if entry.name != "none"]
        trials += [[f"experiment={entry.name}"] for entry in entries("experiment", search_path)]
        trials += [[f"audit={entry.name}"] for entry in entries("audit", search_path)]
        trials += [[f"trainer={entry.name}"] for entry in entries("trainer", search_path)]
    wrong = 0
    for trial in trials:
        for problem in check_one([*trial, *searched]):
            wrong += 1
            print(f"{' '.join(trial)}: {problem}", file=sys.stderr)
    print(f"{len(trials)} compositions checked, {wrong} problem{'s' if wrong != 1 else ''}")
    raise typer.Exit(1 if wrong else 0)


@app.command()
def contract(
    methods: Annotated[list[str], typer.Argument(help="Names of methods, ours or from the search path.")],
    search_path: Search = [],
) -> None:
    """Check what every method owes its users: it changes something, repeats exactly, resumes exactly…"""
    from fisherexp.catalogue import entries
    from fisherexp.contract import Contract

    found = {entry.name: entry for entry in entries("method", search_path)}
    broken = 0
    for name in methods:
        if name not in found:
            print(f"there is no method '{name}' (there are: {', '.join(found)})", file=sys.stderr)
            raise typer.Exit(2)
        with tempfile.TemporaryDirectory() as scratch:
            for check_name, check_method in Contract(found[name], Path(scratch), search_path).checks().items():
                try:
                    check_method()
                    print(f"{name}  {check_name:<28} kept")
                except AssertionError as error:
                    broken += 1
                    print(f"{name}  {check_name:<28} BROKEN: {error}")
    raise typer.Exit(1 if broken else 0)


@app.command()
def status(output_dir: Outputs = Path("outputs")) -> None:
    """State of every run: queued, running (how far), done, failed (error and log), interrupted, lost."""
    from fisherexp.sweeps.queue import QueueUnknown
    from fisherexp.sweeps.status import standings

    counts: Counter[str] = Counter()
    try:
        for standing in standings(output_dir):
            counts[standing.state] += 1
            print(f"{standing.state:<12} {standing.folder}  {standing.remark}".rstrip())
    except QueueUnknown as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None
    print(", ".join(f"{n} {state}" for state, n in counts.items()) or f"no run in {output_dir}")


@app.command()
def job(folder: Annotated[Path, typer.Argument(help="Of one run: what is frozen there is run, in this process.")]):
    """Make one run from its folder's frozen config; launchers start their jobs with it."""
    from fisherexp.single import job as run_job

    sys.exit(run_job(folder))


@app.command()
def reproduce(
    identity: Annotated[str, typer.Argument(help="Hash of a run, or its beginning.")],
    output_dir: Outputs = Path("outputs"),
    run: Annotated[bool, typer.Option("--run", help="Run it again, elsewhere, and compare the figures.")] = False,
) -> None:
    """The commands that make a run again from its commit; with --run, do it and compare."""
    from fisherexp.reports.records import read_records

    found = [r for r in read_records(output_dir).records if r["identity"].startswith(identity)]
    if len(found) != 1:
        what = "no run" if not found else f"{len(found)} runs"
        print(f"{what} in {output_dir} with a hash that begins with '{identity}'", file=sys.stderr)
        raise typer.Exit(2)
    record = found[0]
    commit, dirty = record["code"]["commit"], record["code"]["dirty"]
    if commit:
        print(f"git checkout {commit}" + ("  # the tree had changes that are not in this commit" if dirty else ""))
    print(record["command"])
    if run:
        raise typer.Exit(_run_again(record))


def _run_again(record: dict) -> int:
    from fisherexp.reports.records import read_records
    from fisherexp.runs.record import TIMES

    with tempfile.TemporaryDirectory() as elsewhere:
        command = [
            sys.executable,
            "-m",
            "fisherexp",
            "run",
            *record["overrides"],
            f"output_dir={elsewhere}",
            "rerun=false",
        ]
        if done := subprocess.run(command, check=False).returncode:
            return done
        again = read_records(Path(elsewhere)).records[0]
    differing = [
        f"{stage}/{name}: recorded {value}, now {again['metrics'][stage].get(name)}"
        for stage, metrics in record["metrics"].items()
        for name, value in metrics.items()
        if name not in TIMES and again["metrics"][stage].get(name) != value
    ]
    print("\n".join(differing) or "every figure is the same")
    return 1 if differing else 0
