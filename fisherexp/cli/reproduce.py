"""`reproduce`: how a recorded run is made again, and whether it gives the same figures."""

import os
import shlex
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

    read = read_records(output_dir)
    found = [record for record in read.records if record["identity"].startswith(identity)]
    for file, reason in read.damaged.items():
        if file.parent.name.startswith(identity):
            print(f"{file} cannot be read: {reason}", file=sys.stderr)
    if len(found) != 1:
        what = "no run" if not found else f"{len(found)} runs"
        print(f"{what} in {output_dir} with a hash that begins with '{identity}'", file=sys.stderr)
        raise typer.Exit(2)
    record = found[0]
    commit, dirty = record["code"]["commit"], record["code"]["dirty"]
    if commit:
        print(f"git checkout {commit}" + ("  # the tree had changes that are not in this commit" if dirty else ""))
    if (directory := record.get("directory", os.getcwd())) != os.getcwd():
        print(f"cd {shlex.quote(directory)}")
    print(record["command"])
    if run:
        raise typer.Exit(_run_again(record))


def _run_again(record: dict) -> int:
    """Run it where it was run, with the modules it had, into a folder of its own; compare."""
    from fisherexp.reports.records import PEAKS, read_records
    from fisherexp.runs.record import TIMES, module_paths

    kept = [line for line in record["overrides"] if not line.lstrip("+~").startswith(("output_dir=", "rerun="))]
    environment = os.environ | {name: value for name, value in record.get("environment", {}).items() if value}
    paths = [*record.get("module_paths", []), *module_paths()]
    there = record.get("directory")
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, "-m", "fisherexp", "run", *kept, f"output_dir={elsewhere}"],
            cwd=there if there and Path(there).is_dir() else None,
            env=environment | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))},
            check=False,
        ).returncode
        if done:
            return done
        (again,) = read_records(Path(elsewhere)).records
    differing = [
        f"{stage}/{name}: recorded {value}, now {again['metrics'][stage].get(name)}"
        for stage, metrics in record["metrics"].items()
        for name, value in metrics.items()
        if name not in (*TIMES, *PEAKS) and again["metrics"][stage].get(name) != value
    ]
    print("\n".join(differing) or "every figure is the same")
    return 1 if differing else 0
