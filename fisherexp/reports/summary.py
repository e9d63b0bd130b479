"""One run on one screen, from its record alone."""

import math
import shlex
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

CHANGED = "the code behind this result has changed since: rerun=stale makes it again"
WHOLE = 1e6  # figures from here on are written with a power of ten
STAGES = {"oracle": "retrained oracle", "oracle_deviation": "± between oracles"}


def shown_metrics(record: dict[str, Any]) -> dict[str, str]:
    """Metric -> heading, of those that some stage has."""
    return {name: heading for name, heading in record["headings"].items() if _anywhere(name, record)}


def print_summary(record: dict[str, Any], folder: Path, found: bool, changed: bool = False) -> None:
    """Table of stages × metrics (metrics × stages on a narrow terminal), where the results lie, and the command that
    repeats the run. changed: its code has, since it was made."""
    console = Console(markup=False)  # [csv] is a list, not a style
    shown = shown_metrics(record)
    console.print(title(record), style="bold", highlight=False, soft_wrap=True)
    stages = [["", *shown.values()], *stage_lines(record)]
    table = _drawn(stages)
    if Console(width=10_000).measure(table).maximum > console.width:  # a line for each metric
        metrics = [[" ".join(cell.split()) for cell in line] for line in zip(*stages, strict=True)]
        table = _drawn(metrics)
    if started := source_line(record):
        console.print(f"source   {started}", highlight=False, soft_wrap=True)
    if pretrained := pretrained_line(record):
        console.print(f"weights  {pretrained}", highlight=False, soft_wrap=True)
    console.print(table)
    if record.get("trial"):
        console.print(
            "a trial run (debug preset, limited batches or evaluated on validation data): left out of tables",
            style="yellow",
            highlight=False,
        )
    when = f"found, computed {record.get('finished', 'earlier')}" if found else "now"
    console.print(f"results  {folder} ({when})", highlight=False, soft_wrap=True)
    if changed:
        console.print(CHANGED, style="yellow", highlight=False, soft_wrap=True)
    console.print(f"again    {again(record['command'])}", highlight=False, soft_wrap=True)


def _drawn(lines: list[list[str]]) -> Table:
    """The first line heads the others, whose first cells are words."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column, heading in enumerate(lines[0]):
        table.add_column(heading, justify="right" if column else "left", no_wrap=True)
    for line in lines[1:]:
        table.add_row(*line)
    return table


def print_line(record: dict[str, Any], folder: Path, found: bool, changed: bool = False) -> None:
    """One run of a sweep on one line; `changed` as above."""
    after = record["metrics"]["after"]
    words = {name: " ".join(heading.split()) for name, heading in record["headings"].items() if name in after}
    figures = "  ".join(f"{heading} {format_metric(heading, after[name])}" for name, heading in words.items())
    mark = "found" if found else "done "
    print(f"{mark} {folder}  seed {record['seed']}  {figures}" + (f"  ({CHANGED})" if changed else ""))


def title(record: dict[str, Any]) -> str:
    """`ssd on digits, small_cnn, class_forgetting(classes=[3]), seed 0`."""
    names, config = record["names"], record["config"]
    options = ", ".join(f"{k}={v}" for k, v in config["scenario"].items() if k != "_target_")
    scenario = f"{names['scenario']}({options})" if options else names["scenario"]
    parts = [names["data"], *(part for part in (names["model"], scenario) if part != "none")]
    return f"{names['method']} on {', '.join(parts)}, seed {record['seed']}"


def source_line(record: dict[str, Any]) -> str | None:
    """What the weights were that the method started with; None where it was trained on the run's own data, or there
    were none."""
    source = record.get("source")
    if not source or not source["origin"]:
        return None
    new = f"; new: {', '.join(source['new'])}" if source["new"] else ""
    return source["origin"]["text"] + new


def pretrained_line(record: dict[str, Any]) -> str | None:
    """What weights the network came with, and how its images are normalized; None of one that was new."""
    return record.get("pretrained", {}).get("text")


def again(command: str) -> str:
    """The command with which the result is computed afresh."""
    words = [word for word in shlex.split(command) if not word.lstrip("+").startswith("rerun=")]
    return shlex.join([*words, "rerun=true"])


def stage_lines(record: dict[str, Any]) -> list[list[str]]:
    """A line for each stage: what it is called, and its figures under the headings of `shown_metrics`."""
    stages, lines = record["metrics"], []
    for stage, metrics in stages.items():
        cells = []
        for name, heading in shown_metrics(record).items():
            text = format_metric(heading, metrics.get(name))
            if text and stage in ("oracle", "oracle_deviation"):  # mean and spread of the same models: rounded alike
                pair = [stages.get(part, {}).get(name) for part in ("oracle", "oracle_deviation")]
                if None not in pair:
                    text = format_spread(heading, *pair).split(" ± ")[stage == "oracle_deviation"]
            cells.append(text)
        lines.append([STAGES.get(stage, stage), *cells])
    return lines


def format_metric(heading: str, value: float | None) -> str:
    """Percentages and seconds with one decimal, other figures with three significant digits, or whole from 1,000 on."""
    if value is None:
        return ""
    if _has_one_decimal(heading):
        return f"{value:.1f}"
    return f"{value:.0f}" if 1000 <= abs(value) < WHOLE else f"{value:.3g}"


def format_spread(heading: str, mean: float, around: float) -> str:
    """`0.6770 ± 0.0010`: both with the same decimals, so many that the spread has two significant digits and the mean
    no more than five; of percentages and seconds, one. Very small and very large ones share a power of ten."""
    if _has_one_decimal(heading) or not (math.isfinite(mean) and math.isfinite(around)):
        return f"{format_metric(heading, mean)} ± {format_metric(heading, around)}"
    size = max(abs(mean), around)
    if size == 0:
        return "0 ± 0"
    power = _power(size)
    if not 1e-4 <= size < WHOLE:
        inner = format_spread(heading, mean / 10.0**power, around / 10.0**power)
        return f"({inner})e{power:+03d}"
    digits = 2 - power if around == 0 else 1 - _power(around)
    digits = min(digits, 4 - power)
    return " ± ".join(f"{round(value, digits):.{max(digits, 0)}f}" for value in (mean, around))


def _power(value: float) -> int:
    """Of ten, in a positive number as it is written with two significant digits: -4 for 0.000972, but 0 for 0.996."""
    return int(f"{value:.1e}".partition("e")[2])


def _has_one_decimal(heading: str) -> bool:
    return "%" in heading or heading == "seconds"


def _anywhere(metric: str, record: dict[str, Any]) -> bool:
    return any(metric in stage for stage in record["metrics"].values())
