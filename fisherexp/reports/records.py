"""Reading run records back: all that reports know of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fisherexp.reports.grouping import selected
from fisherexp.runs.code import has_changed
from fisherexp.runs.state import lacking, run_folders

PEAKS = ("memory_mib", "gpu_memory_mib")  # of a run's memory, shown among its metrics


class Damaged(Exception):
    """A file that a run left beside its record cannot be read."""

    def __init__(self, file: Path, reason: object) -> None:
        super().__init__(f"{file} cannot be read: {reason}")
        self.file, self.reason = file, str(reason)


@dataclass(frozen=True)
class Records:
    """records: what could be read, each with its folder under 'folder', and whether its code has changed since under
    'code_changed'; damaged: file -> what is wrong with it."""

    records: list[dict[str, Any]]
    damaged: dict[Path, str]


def read_records(output_dir: Path) -> Records:
    """Every run record below `output_dir`, peaks of memory among its metrics. A file that cannot be read is named in
    `damaged` and left out."""
    records, damaged = [], {}
    for folder in run_folders(output_dir):
        try:
            record = folder.record()
        except (ValueError, OSError) as error:
            damaged[folder.record_file] = f"{type(error).__name__}: {error}"
            continue
        if record is None:
            continue
        if missing := lacking(record):
            damaged[folder.record_file] = f"it lacks {', '.join(missing)}"
        else:
            after = record["metrics"]["after"]
            after |= {
                peak: value for peak, value in record.get("memory", {}).items() if peak in PEAKS and peak not in after
            }
            records.append(record | {"folder": str(folder.path), "code_changed": has_changed(record)})
    return Records(records, damaged)


def is_trial(record: dict[str, Any]) -> bool:
    """Whether tables leave the run out unless asked: a debug preset, a part of the data or one to choose on, or code
    nobody committed."""
    return bool(record["trial"] or record.get("code", {}).get("dirty"))


@dataclass(frozen=True)
class Chosen:
    """records: those to show; left_out: number of trial runs among those asked for; damaged: as of `Records`."""

    records: list[dict[str, Any]]
    left_out: int
    damaged: dict[Path, str]


def choose(output_dir: Path, filters: Sequence[str], trials: bool = False) -> Chosen:
    """The records below `output_dir` for which every `key=value` holds. Raises ValueError for a wrong filter."""
    found = read_records(output_dir)
    wanted = selected(found.records, filters)
    shown = [record for record in wanted if trials or not is_trial(record)]
    return Chosen(shown, len(wanted) - len(shown), found.damaged)


def nothing_found(output_dir: Path, filters: Sequence[str]) -> str:
    """What to say where no run is left to show."""
    return f"no finished run in {output_dir}" + (f" with {' '.join(filters)}" if filters else "")


def left_out(trials: int) -> str:
    """What to say of trial runs that are not shown."""
    runs = f"{trials} trial run{'s' if trials > 1 else ''}"
    return f"{runs} left out: debug presets, limited batches, evaluate_on=validation or uncommitted code"
