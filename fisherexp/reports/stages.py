"""One record as a table: its stages against its metrics."""

from typing import Any

from fisherexp.reports.summary import CHANGED, STAGES, format_metric, shown_metrics, title
from fisherexp.reports.table import Grid


def stages(record: dict[str, Any]) -> Grid:
    """What `print_summary` prints, as a table; the run's folder is in its notes."""
    shown = shown_metrics(record)
    cells = [
        [STAGES.get(stage, stage), *(format_metric(heading, metrics.get(name)) for name, heading in shown.items())]
        for stage, metrics in record["metrics"].items()
    ]
    notes = [f"results: {record['folder']}", *([CHANGED] if record["code_changed"] else [])]
    return Grid(title(record), ["", *shown.values()], 1, cells, notes)
