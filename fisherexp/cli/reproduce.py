"""`reproduce`: how a recorded run is made again, and whether it gives the same figures."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fisherexp.cli.options import Outputs


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
