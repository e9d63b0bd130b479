"""One record as a table: its stages against its metrics."""

from typing import Any

from fisherexp.reports.summary import CHANGED, shown_metrics, stage_lines, title
from fisherexp.reports.table import Grid


def stages(record: dict[str, Any]) -> Grid:
    """What `print_summary` prints, as a table; the run's folder is in its notes."""
    notes = [f"results: {record['folder']}", *([CHANGED] if record["code_changed"] else [])]
    return Grid(title(record), ["", *shown_metrics(record).values()], 1, stage_lines(record), notes)
