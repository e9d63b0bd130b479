"""What has become of a run, read off its folder.

Nothing is stored that a killed process could leave wrong: done means that run.json is there (it is renamed
into place last) and can be read, running means that a live process holds the lock (the kernel lets go of it at any
death), failed means that the last attempt left its traceback.
"""

import json
from collections.abc import Iterable
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fisherexp.files import sweep_up, write_text
from fisherexp.runs.code import has_changed

# Long enough for `status` to take a look at the lock, short enough not to wait for another run.
PATIENCE = 1.0

# What a record must hold to be shown; anything else it may lack, as those of older versions do.
NEEDED = ("identity", "names", "semantic", "config", "seed", "headings", "metrics", "trial", "command")
NAMES = ("data", "model", "scenario", "method")


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    PRUNED = "pruned"  # a search gave it up
    INTERRUPTED = "interrupted"
    LOST = "lost"  # submitted to a cluster, which no longer knows it (see sweeps/status.py)


class Busy(Exception):
    """Another process is working on this run."""


class RunFolder:
    """The folder of one run: its config, lock, record and, after a failure, its traceback."""

    def __init__(self, path: Path):
        self.path = Path(path)

    @property
    def record_file(self) -> Path:
        return self.path / "run.json"

    @property
    def error_file(self) -> Path:
        return self.path / "error.txt"

    @property
    def pruned_file(self) -> Path:
        return self.path / "pruned.txt"

    def state(self) -> State:
        """Where the run stands now. INTERRUPTED: somebody began it, nobody works on it, it did not fail."""
        if self.record_file.is_file() and self.damage() is None:
            return State.DONE
        if self._is_locked():
            return State.RUNNING
        if self.error_file.is_file():
            return State.FAILED
        if self.pruned_file.is_file():
            return State.PRUNED
        return State.INTERRUPTED if (self.path / "config.yaml").is_file() else State.QUEUED

    def record(self) -> dict | None:
        """The run record, or None where the run is not done. Raises ValueError for a file that is no JSON object and
        OSError for one that cannot be opened."""
        if not self.record_file.is_file():
            return None
        record = json.loads(self.record_file.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError(f"{self.record_file} does not hold a run record")
        return record

    def damage(self) -> str | None:
        """Why the record there cannot be read, in one line; None where it can, or there is none."""
        try:
            self.record()
        except (ValueError, OSError, RecursionError) as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())}"
        return None

    def is_settled(self, rerun: bool | str) -> bool:
        """Is the run done, can it be shown, and is it not to be made again? rerun: True, always; 'stale', if its code
        has changed since."""
        if rerun is True or self.state() is not State.DONE or lacking(self.record()):
            return False
        return rerun != "stale" or not has_changed(self.record())

    def unusable(self) -> str | None:
        """Why the run counts as not done although a record is there; None where that is not so."""
        if (reason := self.damage()) or not (record := self.record()):
            return reason
        missing = lacking(record)
        return f"it lacks {', '.join(missing)}" if missing else None

    def error(self) -> str:
        """The last line of the traceback of the last attempt, or nothing."""
        if not self.error_file.is_file():
            return ""
        lines = self.error_file.read_text(encoding="utf-8").strip().splitlines()
        return lines[-1] if lines else ""

    @contextmanager
    def claimed(self):
        """Hold the run for this process. Raises Busy when another one has it."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            raise Busy(f"{self.path} is being worked on by another process") from None
        try:
            sweep_up(self.path)
            yield self
        finally:
            lock.release()

    def forget(self) -> None:
        """Drop the outcome of earlier attempts, so that the run is made again."""
        self.record_file.unlink(missing_ok=True)
        self.error_file.unlink(missing_ok=True)
        self.pruned_file.unlink(missing_ok=True)

    def fail(self, traceback: str) -> None:
        """Keep the traceback of a failed attempt."""
        write_text(self.error_file, traceback)

    def prune(self, grounds: str) -> None:
        """Keep on what grounds a search gave the run up."""
        write_text(self.pruned_file, grounds + "\n")

    def _is_locked(self) -> bool:
        file = self.path / ".lock"
        if not file.is_file():
            return False
        lock = FileLock(file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False


def lacking(record: dict[str, Any]) -> list[str]:
    """What a record would need to be shown, by dotted key."""

    def within(parent: str, keys: Iterable[str]) -> list[str]:
        node = record[parent]
        return [f"{parent}.{key}" for key in keys if not isinstance(node, dict) or key not in node]

    if missing := [key for key in NEEDED if key not in record]:
        return missing
    missing = within("metrics", ["after"]) + within("names", NAMES) + within("config", ["scenario"])
    if missing:
        return missing
    nodes = {"headings": record["headings"], "config.scenario": record["config"]["scenario"]}
    nodes |= {f"metrics.{stage}": figures for stage, figures in record["metrics"].items()}
    missing = [f"{name} by name" for name, node in nodes.items() if not isinstance(node, dict)]
    return missing or [
        f"metrics.{stage}.{name} as a number"
        for stage, figures in record["metrics"].items()
        for name, value in figures.items()
        if not isinstance(value, int | float | None)
    ]


def run_folders(output_dir: Path) -> list[RunFolder]:
    """Every run folder below `output_dir`, sorted by path."""
    return [RunFolder(file.parent) for file in sorted(Path(output_dir).glob("*/*/*/config.yaml"))]
