"""Reading run records back: all that reports know of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fisherexp.runs.state import run_folders


@dataclass(frozen=True)
class Records:
    """records: what could be read, each with its folder under 'folder'; damaged: folder -> what is wrong with it."""

    records: list[dict[str, Any]]
    damaged: dict[Path, str]


def read_records(output_dir: Path) -> Records:
    """Every run record below `output_dir`. A file that cannot be read is named in `damaged` and left out."""
    records, damaged = [], {}
    for folder in run_folders(output_dir):
        try:
            record = folder.record()
            if record is not None:
                _ = record["metrics"]["after"], record["names"], record["semantic"], record["headings"]
                records.append(record | {"folder": str(folder.path)})
        except (ValueError, KeyError, TypeError, OSError) as error:
            damaged[folder.path] = f"{type(error).__name__}: {error}"
    return Records(records, damaged)


def is_trial(record: dict[str, Any]) -> bool:
    """Whether tables leave the run out unless asked: a debug preset, a part of the data, or code nobody committed."""
    return bool(record["trial"] or record.get("code", {}).get("dirty"))
