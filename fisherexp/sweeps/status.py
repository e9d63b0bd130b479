"""Where every run stands: what its folder says, and what SLURM says of those submitted to it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fisherexp.runs.code import has_changed
from fisherexp.runs.state import RunFolder, State, run_folders
from fisherexp.sweeps.queue import Submitted, submitted

CHANGED = "its code has changed since (rerun=stale)"


@dataclass(frozen=True)
class Standing:
    """State of one run; remark: how far it is, its error and its log, as the state has it."""

    state: State
    folder: Path
    remark: str = ""


def standings(output_dir: Path) -> Iterator[Standing]:
    """Every run below `output_dir`, by path. Raises QueueUnknown where runs were submitted and SLURM is silent."""
    known = submitted(output_dir)
    for folder in run_folders(output_dir):
        job = known.get(folder.path.resolve())
        state = _state(folder, job)
        yield Standing(state, folder.path, _remark(state, folder, job))


def _state(folder: RunFolder, job: Submitted | None) -> State:
    found = folder.state()
    if found is State.DONE and folder.unusable():  # it is made again
        found = State.INTERRUPTED
    if job is None or found in (State.DONE, State.RUNNING):
        return found
    if job.state is not None:  # an earlier failure is history: it is tried again
        return State.RUNNING if job.is_running else State.QUEUED
    return State.LOST if found is State.INTERRUPTED else found


def _remark(state: State, folder: RunFolder, job: Submitted | None) -> str:
    match state:
        case State.QUEUED:
            return f"job {job.job}: {job.state.lower()}"
        case State.RUNNING:
            return "  ".join([_progress(folder), *([f"job {job.job}"] if job and job.job else [])])
        case State.FAILED:
            return f"{folder.error()}  ({job.log if job else folder.error_file})"
        case State.DONE:
            return _changed(folder)
        case State.LOST:
            return f"{job.last_line() or 'no output'}  ({job.log})"
        case State.INTERRUPTED if reason := folder.unusable():
            return f"{folder.record_file} cannot be read: {reason}"
    return ""


def _changed(folder: RunFolder) -> str:
    return CHANGED if has_changed(folder.record()) else ""


def _progress(folder: RunFolder) -> str:
    try:
        told = json.loads((folder.path / "progress.json").read_text(encoding="utf-8"))
        return f"{told['phase']} {told['step']}/{told['steps']}"
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # none yet, or damaged
        return "starting"
