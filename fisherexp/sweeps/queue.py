"""What SLURM knows of the runs submitted to it.

A submission is a folder `<output_dir>/.sweep/slurm/<name>/`: `runs.txt` holds one run folder a line, task i of the
array makes line i, and its output is `<i>.log`. The array's job name is the submission's, so the queue alone says
which runs are waiting: nothing has to be written down after `sbatch`, and a launcher may die at any moment.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PREFIX = "fisherexp-"


class QueueUnknown(Exception):
    """SLURM cannot be asked; the message is one line."""


@dataclass(frozen=True)
class Submitted:
    """log: of the newest job that was to make a run. job: what SLURM calls it while it knows it, e.g. 12_3.
    state: SLURM's word for it ('PENDING', 'RUNNING'…), or None where the job is no longer in the queue."""

    log: Path
    job: str | None = None
    state: str | None = None

    @property
    def is_running(self) -> bool:
        return self.state in ("RUNNING", "COMPLETING")

    def last_line(self) -> str:
        """The end of the log; where SLURM ended the job, what it says of that."""
        if not self.log.is_file():
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reasons = [line for line in lines if line.startswith("slurmstepd")]
        return (reasons or lines or [""])[-1]


def submissions_folder(output_dir: Path) -> Path:
    return Path(output_dir).resolve() / ".sweep" / "slurm"


def submitted(output_dir: Path) -> dict[Path, Submitted]:
    """Run folder -> its newest job, for every run below `output_dir` that was ever submitted.

    Raises QueueUnknown where there are submissions and SLURM does not answer.
    """
    lists = sorted(submissions_folder(output_dir).glob("*/runs.txt"))
    if not lists:
        return {}
    queue = _queue()
    found = {}
    for file in lists:
        for index, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
            job, state = queue.get((file.parent.name, index), (None, None))
            found[Path(line)] = Submitted(file.parent / f"{index}.log", job, state)
    return found


def _queue() -> dict[tuple[str, int], tuple[str, str]]:
    """(submission, index) -> (job, state) of all our jobs in the queue."""
    command = ["squeue", "--me", "--noheader", "--array", "--format=%j|%F|%K|%T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise QueueUnknown("runs were submitted to SLURM, but there is no squeue on this machine") from None
    except subprocess.CalledProcessError as error:
        raise QueueUnknown(f"squeue does not answer: {' '.join(error.stderr.split())}") from None
    found = {}
    for line in done.stdout.splitlines():
        name, array, index, state = line.split("|")
        if name.startswith(PREFIX) and index.isdigit():
            found[name.removeprefix(PREFIX), int(index)] = (f"{array}_{index}", state)
    return found


def requeue() -> None:
    """Under SLURM, put this job back into the queue, unless SLURM is already ending it (scancel, preemption)."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        print("stopped; launch the same line again to go on", file=sys.stderr)
        return
    state = subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True).stdout.strip()
    if state != "RUNNING":
        print(f"stopped, as SLURM asked (job {job}: {state or 'unknown'})", file=sys.stderr)
        return
    print(f"stopped with its state saved; back into the queue as job {job}", file=sys.stderr, flush=True)
    subprocess.run(["scontrol", "requeue", job], check=True)
