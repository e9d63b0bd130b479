"""Arguments that several commands have."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def _there(entries: list[str]) -> list[str]:
    from fisherexp.config.locations import allow_namespaces, folders_of

    there = {entry for entry in entries if entry.strip() and any(folder.is_dir() for folder in folders_of(entry))}
    if lost := [entry for entry in entries if entry not in there]:
        print(f"--search-path '{lost[0]}': there is no such package or folder", file=sys.stderr)
        raise typer.Exit(2)
    allow_namespaces(entries)
    return entries


Search = Annotated[
    list[str],
    typer.Option("--search-path", callback=_there, help="Further config directories: pkg://package.conf or a path."),
]
Outputs = Annotated[Path, typer.Option("--output-dir", "-o", help="Where the runs lie.")]
Runs = Annotated[Path, typer.Option("--output-dir", help="Where the runs lie.")]
Filters = Annotated[list[str] | None, typer.Argument(help="Only these: method='ssd|scrub' model.width=8 …")]
Over = Annotated[list[str], typer.Option(help="Pool the values of this config key, as seeds are.")]
Metrics = Annotated[list[str], typer.Option(help="Metrics of run.json instead of the usual ones.")]
Trials = Annotated[
    bool,
    typer.Option(help="Include trial runs: debug presets, limited batches, evaluate_on=validation, uncommitted code."),
]
