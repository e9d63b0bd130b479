"""Run records as a pandas frame: a line per run."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from fisherexp.reports.grouping import LABELS, flattened
from fisherexp.reports.records import is_trial

FIRST = ("identity", *LABELS, "seed", "trial", "finished", "code_changed", "folder")


def frame(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Columns: those of FIRST; every option that can change a result, by its dotted key ('method.alpha'); every metric
    as '<stage>/<metric>' ('after/forget_accuracy'). What a run does not have is missing (NaN or None)."""
    lines = []
    for record in records:
        first = {name: record.get(name) for name in FIRST}
        first |= {label: record["names"][label] for label in LABELS} | {"trial": is_trial(record)}
        options = {key: value for key, value in flattened(record).items() if key not in first}
        metrics = {
            f"{stage}/{name}": value for stage, metrics in record["metrics"].items() for name, value in metrics.items()
        }
        lines.append(first | options | metrics)
    names = dict.fromkeys([*FIRST, *sorted({name for line in lines for name in line if "/" not in name})])
    names |= dict.fromkeys(name for line in lines for name in line)
    return pd.DataFrame(lines, columns=list(names))
