"""What has become of each run of a sweep, told by the processes that made them: one line of JSON a run.

A launcher may use processes of its own, on other machines even, and Hydra reports nothing of theirs but the first
exception. So each appends to a file whose path it inherits through the environment.
"""

import json
import os
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

VARIABLE = "FISHEREXP_LEDGER"


class Outcome(StrEnum):
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"  # its config is wrong
    PRUNED = "pruned"  # a search gave it up
    SKIPPED = "skipped"  # another process is working on it, or the sweep was to stop


@dataclass(frozen=True)
class Entry:
    """folder: of the run, or '' where it has none. remark: why it is not done, one line."""

    outcome: Outcome
    folder: str = ""
    remark: str = ""


class Ledger:
    """Append-only; an entry is one short write, which the kernel does not mix with those of other processes."""

    def __init__(self, path: Path):
        self.path = Path(path)

    @classmethod
    def of_sweep(cls) -> "Ledger | None":
        """That of the sweep this process works for, if any."""
        return cls(Path(os.environ[VARIABLE])) if VARIABLE in os.environ else None

    def open(self) -> None:
        """Start it empty and make it known to processes started from here on."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("", encoding="utf-8")
        os.environ[VARIABLE] = str(self.path.resolve())

    def close(self) -> list[Entry]:
        """Its entries; the file goes, and no process started from here on writes to it."""
        entries = self.entries()
        os.environ.pop(VARIABLE, None)
        self.path.unlink(missing_ok=True)
        return entries

    def add(self, outcome: Outcome, folder: Path | str = "", remark: str = "") -> None:
        """Tell of one run."""
        line = json.dumps(asdict(Entry(outcome, str(folder), remark))) + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def entries(self) -> list[Entry]:
        """What has been told so far."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [Entry(Outcome(e["outcome"]), e["folder"], e["remark"]) for e in map(json.loads, lines)]

    def has_failures(self) -> bool:
        """Has any run failed so far?"""
        return any(entry.outcome is Outcome.FAILED for entry in self.entries())
