"""`run` and `job`: make runs, as they are asked for or as they were frozen."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def run(context: typer.Context) -> None:
    """Run one experiment, or a sweep with -m: the same as `python run.py` in a checkout."""
    from fisherexp.app import main as run_main

    sys.exit(run_main(context.args))


def job(folder: Annotated[Path, typer.Argument(help="Of one run: what is frozen there is run, in this process.")]):
    """Make one run from its folder's frozen config; launchers start their jobs with it."""
    from fisherexp.single import job as run_job

    sys.exit(run_job(folder))
