"""One run on one screen, from its record alone."""

import shlex
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

CHANGED = "the code behind this result has changed since: rerun=stale makes it again"
STAGES = {"oracle": "retrained oracle", "oracle_deviation": "± between oracles"}


def shown_metrics(record: dict[str, Any]) -> dict[str, str]:
    """Metric -> heading, of those that some stage has."""
    return {name: heading for name, heading in record["headings"].items() if _anywhere(name, record)}


def print_summary(record: dict[str, Any], folder: Path, found: bool, changed: bool = False) -> None:
    """Table of stages × metrics, where the results lie, and the command that repeats the run. changed: its code has,
    since it was made."""
    console = Console(markup=False)  # [csv] is a list, not a style
    shown = shown_metrics(record)
    console.print(title(record), style="bold", highlight=False, soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("")
    for heading in shown.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for stage, metrics in record["metrics"].items():
        table.add_row(
            STAGES.get(stage, stage), *(format_metric(heading, metrics.get(name)) for name, heading in shown.items())
        )
    if started := source_line(record):
        console.print(f"source   {started}", highlight=False, soft_wrap=True)
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


def again(command: str) -> str:
    """The command with which the result is computed afresh."""
    words = [word for word in shlex.split(command) if not word.lstrip("+").startswith("rerun=")]
    return shlex.join([*words, "rerun=true"])


def format_metric(heading: str, value: float | None) -> str:
    """Percentages and seconds with one decimal, other figures with three significant digits."""
    if value is None:
        return ""
    return f"{value:.1f}" if "%" in heading or heading == "seconds" else f"{value:.3g}"


def _anywhere(metric: str, record: dict[str, Any]) -> bool:
    return any(metric in stage for stage in record["metrics"].values())
