"""`status`: how far every run is."""

import sys
from collections import Counter
from pathlib import Path

import typer

from fisherexp.cli.options import Outputs


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
