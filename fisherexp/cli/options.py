"""Arguments that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Search = Annotated[
    list[str], typer.Option("--search-path", help="Further config directories: pkg://package.conf or a path.")
]
Outputs = Annotated[Path, typer.Option("--output-dir", "-o", help="Where the runs lie.")]
Runs = Annotated[Path, typer.Option("--output-dir", help="Where the runs lie.")]
Filters = Annotated[list[str] | None, typer.Argument(help="Only these: method='ssd|scrub' model.width=8 …")]
Over = Annotated[list[str], typer.Option(help="Pool the values of this config key, as seeds are.")]
Metrics = Annotated[list[str], typer.Option(help="Metrics of run.json instead of the usual ones.")]
Trials = Annotated[bool, typer.Option(help="Include trial runs: debug presets, limited batches, uncommitted code.")]
