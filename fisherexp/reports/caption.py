"""What stands under a table: over what was averaged, under which protocol, with which estimator, from which code."""

from collections.abc import Sequence
from typing import Any

from fisherexp.reports.summary import pretrained_line, source_line

SIGNIFICANCE = 0.05
CHANGED = "†"  # marks rows with runs whose code has changed since


def caption(
    records: list[dict[str, Any]], pooled: Sequence[str], lines: Sequence[Any], baseline: str | None
) -> list[str]:
    """One line for each thing a reader must know. `lines` are those of a Comparison."""
    counts = sorted({count for line in lines for count in line.counts if count})
    notes = [f"values after the method, over {_runs(counts)} ({', '.join(pooled)})"]
    notes.append(f"protocol: {'; '.join(_protocols(records, pooled))}; the weights each method ends with")
    if data := _differing_data(records, pooled):
        notes.append(f"not all methods have the same data: {'; '.join(data)}")
    if sources := sorted({line for record in records if (line := source_line(record))}):
        notes.append(f"source: {' | '.join(sources)}")
    if weights := sorted({line for record in records if (line := pretrained_line(record))}):
        notes.append(f"pretrained: {' | '.join(weights)}")
    if estimators := _estimators(records):
        notes.append(f"Fisher: {'; '.join(estimators)}")
    if any(cell.best for line in lines for cell in line.cells):
        notes.append("bold: best mean of its column, where a direction is declared")
    if baseline:
        notes.append(
            f"*: differs from {baseline}, paired t-test over {', '.join(pooled)}, p < {SIGNIFICANCE:g}, "
            "not corrected for the number of tests"
        )
        ours = [line for line in lines if not (line.reference or line.baseline)]
        if untested := sum(all(cell.p is None for cell in line.cells) for line in ours):
            many = f"{untested} row{'s' if untested > 1 else ''} not tested"
            notes.append(f"{many}: no two runs of one setting to pair with {baseline}")
    if changed := sum(bool(record.get("code_changed")) for record in records):
        notes.append(
            f"{CHANGED}: the code behind {changed} of the runs has changed since; rerun=stale makes them again"
        )
    notes.append(_code(records))
    return notes


def _runs(counts: Sequence[int]) -> str:
    """`3 runs each`, `1 to 3 runs each`; counts: rising."""
    if not counts or counts[-1] == 1:
        return "one run each"
    return f"{counts[0]} to {counts[-1]} runs each" if len(counts) > 1 else f"{counts[0]} runs each"


def _protocols(records: list[dict[str, Any]], pooled: Sequence[str]) -> list[str]:
    """Each scenario with the options all its runs share."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_name.setdefault(record["names"]["scenario"], []).append(record["semantic"].get("scenario", {}))
    found = []
    for name, options in sorted(by_name.items()):
        same = {k: v for k, v in options[0].items() if all(o.get(k) == v for o in options) and not k.startswith("_")}
        words = ", ".join(f"{key}={value}" for key, value in same.items() if f"scenario.{key}" not in pooled)
        found.append(f"{name}({words})" if words else name)
    return found


def _differing_data(records: list[dict[str, Any]], pooled: Sequence[str]) -> list[str]:
    """Which method has which options of a data set, where not all have the same. Batch sizes make no other data."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_name.setdefault(record["names"]["data"], []).append(record)
    found = []
    for name, together in sorted(by_name.items()):
        options = [record["semantic"].get("data", {}) for record in together]
        keys = {key for given in options for key in given if not key.endswith("batch_size")}
        keys -= {key for key in keys if f"data.{key}" in pooled or len({str(o.get(key)) for o in options}) == 1}
        texts: dict[str, set[str]] = {}
        for record, given in zip(together, options, strict=True):
            words = ", ".join(f"{key}={given.get(key)}" for key in sorted(keys))
            texts.setdefault(record["names"]["method"], set()).add(f"{name}({words})")
        if len({frozenset(given) for given in texts.values()}) > 1:
            found += [f"{method} on {' and '.join(sorted(given))}" for method, given in sorted(texts.items())]
    return found


def _estimators(records: list[dict[str, Any]]) -> list[str]:
    """The estimator each method's importance names."""
    found: dict[str, set[str]] = {}
    for record in records:
        importance = record["semantic"].get("method", {}).get("importance")
        if isinstance(importance, dict) and "gradients" in importance:
            words = [f"{importance['gradients']}", f"{importance['labels']} labels"]
            if importance["gradients"] == "batch_mean":
                words.append(f"batches of {importance['batch_size']}")
            found.setdefault(", ".join(words), set()).add(record["names"]["method"])
    return [f"{', '.join(sorted(methods))}: {text}" for text, methods in sorted(found.items())]


def _code(records: list[dict[str, Any]]) -> str:
    states = [record.get("code", {}) for record in records]
    commits = sorted({(state.get("commit") or "unknown")[:7] for state in states})
    text = f"code: {', '.join(commits)}" if len(commits) <= 3 else f"code: {len(commits)} commits"
    return f"{text}, with uncommitted changes" if any(state.get("dirty") for state in states) else text
