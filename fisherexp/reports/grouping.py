"""Run records in groups: which runs are repetitions of one experiment, and what tells experiments apart."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

NUMBER = re.compile(r"((?:(?<!\w)-)?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")
HASH = re.compile("[0-9a-f]{32}")
LABELS = ("data", "model", "scenario", "method")
Record = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """labels: names of data, model, scenario and method; options: what tells rows of equal names apart.

    stage: whose metrics these are: of the model 'after' the method, or of a reference model.
    """

    labels: tuple[str, ...]
    options: str
    runs: list[Record]
    stage: str = "after"

    @property
    def published(self) -> dict[str, list[float]]:
        """Metric -> [mean, standard deviation] or [mean] that the method declares as published for these data."""
        return self.runs[0].get("published", {}) if self.stage == "after" else {}

    def values(self, metric: str) -> list[float]:
        """The metric, one value per run that has it."""
        found = (run["metrics"].get(self.stage, {}).get(metric) for run in self.runs)
        return [value for value in found if value is not None]


def rows(records: list[Record], over: Sequence[str] = (), stage: str = "after", shown: Sequence[str] = ()) -> list[Row]:
    """Records grouped by everything but the seed and the keys in `over`, sorted by their labels.

    over: names of LABELS ('method') or dotted config keys ('scenario.classes'); a key stands for all below it.
    shown: keys that a table shows in columns of their own, and `options` need not repeat.
    """
    pooled = ("seed", *over)
    families: dict[tuple, list[Record]] = {}
    for record in records:
        labels = tuple("" if label in over else record["names"][label] for label in LABELS)
        options = {k: v for k, v in flattened(record).items() if not below(k, pooled)}
        families.setdefault((labels, *sorted((k, str(v)) for k, v in options.items())), []).append(record)
    named: dict[tuple[str, ...], list[list[Record]]] = {}
    for (labels, *_), runs in families.items():
        named.setdefault(labels, []).append(runs)
    found = []
    for labels, groups in sorted(named.items()):
        flat = [flattened(runs[0]) for runs in groups]
        keys = {key for options in flat for key in options if not below(key, pooled)}
        keys -= set(shown)  # a name among them, 'method', says nothing of the options below it
        differing = sorted(key for key in keys if len({str(options.get(key)) for options in flat}) > 1)
        short, values = _short(differing), {key: [o[key] for o in flat if key in o] for key in differing}
        for runs, options in zip(groups, flat, strict=True):
            text = ", ".join(f"{short[k]}={option(options[k], values[k])}" for k in differing if k in options)
            found.append(Row(labels, text, runs, stage))
    return sorted(found, key=lambda row: (row.labels, natural(row.options)))


def natural(text: str) -> list[str | float]:
    """A key to sort by in which numbers count as numbers: alpha=3 before alpha=20, 1e-5 before 0.1."""
    parts = NUMBER.split(text)
    return [float(part) if place % 2 else part for place, part in enumerate(parts)]


def references(records: list[Record], over: Sequence[str] = (), shown: Sequence[str] = ()) -> list[Row]:
    """A row for each reference model ('before', 'oracle') that records were compared with, each model once."""
    found = []
    for stage in ("before", "oracle"):
        unique: dict[tuple, Record] = {}
        for record in records:
            if stage in record["metrics"]:
                others = {k: v for k, v in flattened(record).items() if not below(k, ("method",))}
                unique.setdefault(tuple(sorted((k, str(v)) for k, v in others.items())), record)
        for row in rows(list(unique.values()), [*over, "method"], stage, shown):
            found.append(Row((*row.labels[:-1], f"({stage})"), row.options, row.runs, stage))
    return found


def selected(records: list[Record], filters: Sequence[str]) -> list[Record]:
    """Records for which every `key=value` holds; keys as in `rows`, `key=a|b` allows several values, 3e-3 is 0.003.

    Raises ValueError for a filter that is no `key=value`, or whose key no record has.
    """
    for text in filters:
        key, equals, wanted = text.partition("=")
        if not equals:
            raise ValueError(f"'{text}' is no filter: write key=value, e.g. method=ssd or scenario.classes=[3]")
        if records and all(value_of(record, key) is None for record in records):
            raise ValueError(f"no run has a '{key}': {instead_of(records, key)}")
        several = wanted.split("|")
        records = [r for r in records if any(_is_written(value_of(r, key), one) for one in several)]
    return records


def _is_written(value: Any, text: str) -> bool:
    """Whether a filter's text stands for this value: as Python or the command line have it, a number in any form."""
    if text in (str(value), option(value, [])):
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return float(text) == value
    except ValueError:
        return False


def has_key(record: Record, key: str) -> bool:
    """Is it the name of a config group, or a dotted key of what decides the run's result, or a parent of some?"""
    return key in record["names"] or any(k == key or k.startswith(f"{key}.") for k in flattened(record))


def require(records: list[Record], keys: Sequence[str]) -> None:
    """Raises ValueError, with what to write instead, for a key that no record has."""
    for key in keys:
        if not any(has_key(record, key) for record in records):
            raise ValueError(f"no run has a '{key}': {instead_of(records, key)}")


def instead_of(records: list[Record], key: str) -> str:
    """What to write for a key that no record has: one that ends so (of a run's source, say), or is like it."""
    there = {known for record in records for known in flattened(record)}
    alike = sorted(known for known in there if known.endswith(f".{key}")) or get_close_matches(key, there, n=1)
    return f"use {' or '.join(alike)}" if alike else f"use {', '.join(LABELS)} or a dotted key of its config"


def value_of(record: Record, key: str) -> Any:
    """The name of a config group, or the value of a dotted config key; None where the run has neither."""
    return record["names"][key] if key in record["names"] else flattened(record).get(key)


def flattened(record: Record) -> dict[str, Any]:
    """What decides the run's result, by dotted config key."""
    return _flatten(record["semantic"])


def below(key: str, parents: Sequence[str]) -> bool:
    """Whether a dotted key is one of `parents` or lies below one."""
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def option(value: Any, others: Sequence[Any]) -> str:
    """A value as the command line has it. A file, which a record keeps as its name and a hash, stands as its name; with
    six digits of the hash where it is not the only one of that name among `others`."""
    if _is_file(value):
        alike = {other[1] for other in others if _is_file(other) and other[0] == value[0]}
        return value[0] if len(alike) < 2 else f"{value[0]}@{value[1][:6]}"
    if isinstance(value, list):
        inner = [item for other in others if isinstance(other, list) for item in other]
        return f"[{', '.join(option(item, inner) for item in value)}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_file(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], str) and bool(HASH.fullmatch(value[1]))


def _short(keys: list[str]) -> dict[str, str]:
    """Each dotted key with its last word, or whole where two share it."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: word if last.count(word) == 1 else key for key, word in zip(keys, last, strict=True)}


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    found = {}
    for key, value in node.items():
        found |= _flatten(value, f"{prefix}.{key}" if prefix else key)
    return found
