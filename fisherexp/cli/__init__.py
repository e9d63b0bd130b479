"""`fisherexp …` and `python -m fisherexp …`: one file a family of commands, each with its arguments.

Light: what a command needs is imported when it is called.
"""

import os
import sys

import typer

from fisherexp.cli import catalogue, checks, reports, reproduce, runs, status

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Experiments with curvature-aware methods.")
ANY_ARGUMENTS = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

app.command()(reports.table)
app.command()(reports.plot)
app.command()(reports.report)
app.command()(reports.selection)
app.command(context_settings=ANY_ARGUMENTS, add_help_option=False)(runs.run)
app.command(name="list")(catalogue.list_)
app.command()(catalogue.methods)
app.command()(checks.check)
app.command()(checks.contract)
app.command()(status.status)
app.command()(runs.job)
app.command()(reproduce.reproduce)


def main() -> None:
    """Entry point of the console script. A package of one's own lies in the working directory, where `python -m` looks
    and a script does not. A full disk, or a file that may not be read or written, is one line."""
    if not {"", os.getcwd()} & {*sys.path}:
        sys.path.insert(0, os.getcwd())
    try:
        app()
    except OSError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
