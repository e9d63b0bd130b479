"""What the page shows of one run: its record, its curves, its pictures."""

import base64
import csv
import json
import math
from pathlib import Path
from typing import Any

from fisherexp.reports.grouping import Record
from fisherexp.reports.summary import again, title

CURVES = Path("csv") / "metrics.csv"
POINTS = 150  # of a curve that are shown
OUTCOME_BYTES = 20_000
SHOWN = ("names", "seed", "metrics", "config", "costs", "memory", "code", "versions", "hardware", "finished", "seconds")


def run_data(record: Record, picture_bytes: int) -> dict[str, Any]:
    """Plain containers. Pictures are taken along as long as they fit into `picture_bytes`. 'damaged' says what is wrong
    with its curves."""
    folder = Path(record["folder"])
    found = {key: record[key] for key in SHOWN if key in record}
    outcome = record.get("outcome", {})
    if len(json.dumps(outcome)) <= OUTCOME_BYTES:
        found["outcome"] = outcome
    found |= {"id": record["identity"], "title": title(record), "command": again(record["command"])}
    found |= {"curves": {}, "pictures": [], "left_out": 0}
    try:
        found["curves"] = curves(folder / CURVES)
    except ValueError as error:
        found["damaged"] = str(error)
    for file in sorted(folder.glob("*.png")) + sorted(folder.glob("*.gif")):
        data = base64.b64encode(file.read_bytes()).decode()
        if len(data) <= picture_bytes:
            picture_bytes -= len(data)
            found["pictures"].append({"name": file.name, "type": file.suffix[1:], "data": data})
        else:
            found["left_out"] += 1
    return _finite(found)


def curves(file: Path) -> dict[str, list[list[float]]]:
    """Metric -> [[step, value], …] of a metrics.csv, thinned to POINTS; nothing where there is none.

    Raises ValueError for a file that does not hold numbers.
    """
    if not file.is_file():
        return {}
    found: dict[str, list[list[float]]] = {}
    with file.open(newline="", encoding="utf-8") as text:
        for line in csv.DictReader(text):
            for name, value in line.items():
                if name not in ("step", "epoch", None) and value:
                    found.setdefault(name, []).append([float(line["step"] or 0), float(f"{float(value):.5g}")])
    return {name: _thinned(points) for name, points in found.items() if len(points) > 1}


def _thinned(points: list[list[float]]) -> list[list[float]]:
    step = max(1, math.ceil(len(points) / POINTS))
    kept = points[::step]
    return kept if kept[-1] is points[-1] else [*kept, points[-1]]


def _finite(node: Any) -> Any:
    """JSON has no NaN and no infinity: they become text."""
    if isinstance(node, dict):
        return {key: _finite(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_finite(value) for value in node]
    return str(node) if isinstance(node, float) and not math.isfinite(node) else node
