"""Run records compared: which figures stand in which cell of a table, before anybody formats them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fisherexp.reports.caption import caption
from fisherexp.reports.grouping import (
    LABELS,
    Record,
    Row,
    below,
    flattened,
    natural,
    references,
    require,
    rows,
    selected,
    value_of,
)
from fisherexp.reports.spread import Spread, paired_p, spread

# What no cell may average over: such figures answer different questions.
APART = ("data", "model", "scenario", "method")


@dataclass(frozen=True)
class Column:
    """One metric, for one value of the keys that columns are made of ('' without any).

    better: 'higher' or 'lower' where an extreme is the goal, as the metric declares; else None.
    """

    value: str
    metric: str
    heading: str
    better: str | None


@dataclass(frozen=True)
class Cell:
    """spread: of the runs' values, None where there are none. published: mean and standard deviation the method
    declares. p: of the paired test against the baseline. best: no other method's mean in this column is better."""

    spread: Spread | None
    published: tuple[float, ...] | None = None
    p: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Line:
    """labels: one for each of the comparison's heads; counts: runs, by value of the columns' keys."""

    labels: list[str]
    counts: list[int]
    cells: list[Cell]
    runs: list[Record]
    reference: bool = False
    baseline: bool = False


@dataclass(frozen=True)
class Comparison:
    """A table before it is formatted. notes: what its figures are, a line each."""

    title: str
    heads: list[str]
    columns: list[Column]
    lines: list[Line]
    notes: list[str]


def compare(
    records: list[Record],
    by: Sequence[str] = (),
    columns: Sequence[str] = (),
    over: Sequence[str] = (),
    metrics: Sequence[str] = (),
    with_references: bool = False,
    baseline: str | None = None,
) -> Comparison:
    """Rows of repeated runs against columns of metrics.

    by: keys whose values are the rows' labels, in this order; by default the names that tell something. Whatever else
    tells rows apart stands under 'options'. columns: keys whose values get columns of their own. over: keys pooled
    like seeds. metrics: which; by default those the records declare headings for. baseline: a method,
    if need be with filters that choose one of its rows ('ssd method.alpha=10'); the other rows of a setting are
    compared with it by a paired t-test over whatever is pooled.
    Raises ValueError where a cell would average over runs that answer different questions, for a metric no run has, and
    for a baseline that is unknown or has several rows in one setting.
    """
    require(records, (*by, *columns, *over))
    for key in (*by, *columns):
        if not any(key in record["names"] or key in flattened(record) for record in records):
            inner = sorted({k for record in records for k in flattened(record) if k.startswith(f"{key}.")})
            raise ValueError(f"'{key}' has several options, each a key of its own: {', '.join(inner)}")
    pooled = [*over, *columns]
    found = rows(records, pooled, shown=by)
    heads = [key for key in by if key not in pooled]
    heads += [label for i, label in enumerate(LABELS) if label not in (*by, *pooled) and _tells(label, i, found, by)]
    groups = [(row, True) for row in references(records, pooled, by)] if with_references else []
    groups += [(row, False) for row in found]
    with_options = any(row.options for row, _ in groups)
    values = sorted({_value(record, columns) for record in records}, key=natural)
    declared, better = headings(records), _merged(records, "better")
    present = {name for row, _ in groups for run in row.runs for name in run["metrics"].get(row.stage, {})}
    _refuse_unknown(metrics, present)
    wanted = metrics or [name for name in declared if name in present]
    made = [Column(v, name, declared.get(name, name), better.get(name)) for v in values for name in wanted]
    lines = [_line(row, heads, with_options, made, values, columns, reference) for row, reference in groups]
    if by:
        lines.sort(key=lambda line: (not line.reference, *map(natural, line.labels)))
    if baseline:
        lines = _tested(lines, baseline, made, columns, ("seed", *pooled))
    lines = _with_best(lines, made, pooled)
    fixed = [found[0].labels[i] for i, label in enumerate(LABELS) if label not in (*heads, *pooled)]
    notes = caption(records, ["seed", *over], lines, baseline)
    return Comparison(", ".join(fixed), heads + ["options"] * with_options, made, lines, notes)


def headings(records: list[Record]) -> dict[str, str]:
    """Metric -> heading, as the records declare them, in order of first appearance; seconds last."""
    found = _merged(records, "headings")
    return {name: found[name] for name in sorted(found, key=lambda name: name == "seconds")}


def _merged(records: list[Record], name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for record in records:
        found |= record.get(name, {})
    return found


def _tells(label: str, index: int, found: list[Row], by: Sequence[str]) -> bool:
    return (label == "method" and not by) or len({row.labels[index] for row in found}) > 1


def _value(record: Record, columns: Sequence[str]) -> str:
    return ", ".join(str(value_of(record, key)) for key in columns)


def _line(
    row: Row,
    heads: list[str],
    with_options: bool,
    made: list[Column],
    values: list[str],
    columns: Sequence[str],
    reference: bool,
) -> Line:
    named = dict(zip(LABELS, row.labels, strict=True))
    labels = [named[head] if head in named else str(value_of(row.runs[0], head)) for head in heads]
    runs = {v: [run for run in row.runs if _value(run, columns) == v] for v in values}
    parts = {value: Row(row.labels, row.options, some, row.stage) for value, some in runs.items()}
    if not reference:
        for some in runs.values():
            _refuse_mixture(some)
    cells = [Cell(spread(parts[c.value].values(c.metric)), _published(parts[c.value], c.metric)) for c in made]
    return Line(labels + [row.options] * with_options, [*map(len, runs.values())], cells, row.runs, reference)


def _published(row: Row, metric: str) -> tuple[float, ...] | None:
    given = row.published.get(metric) if row.runs else None
    return tuple(given) if given else None


def _refuse_mixture(runs: list[Record]) -> None:
    """Raises ValueError if these runs differ in what APART names, or in the estimator of a Fisher."""
    for label in APART:
        names = sorted({run["names"][label] for run in runs})
        if len(names) > 1:
            raise ValueError(_mixture(label, names))
    for key in sorted({key for run in runs for key in flattened(run) if key.startswith("method.importance.")}):
        if key.rpartition(".")[2] in ("labels", "gradients"):
            found = sorted({str(flattened(run).get(key)) for run in runs})
            if len(found) > 1:
                raise ValueError(_mixture(key, found))


def _refuse_unknown(metrics: Sequence[str], present: set[str]) -> None:
    for name in metrics:
        if name not in present:
            from fisherexp.config.problem import nearest

            near = nearest(name, sorted(present))
            raise ValueError(f"no run has a metric '{name}'" + (f"; nearest: {near}" if near else ""))


def _mixture(key: str, values: list[str]) -> str:
    remedy = f"--cols {key}, or a filter such as {key}={values[0]}"
    return f"a cell would average over {key}={' and '.join(values)}: use {remedy}"


def _tested(
    lines: list[Line], baseline: str, made: list[Column], columns: Sequence[str], pooled: Sequence[str]
) -> list[Line]:
    chosen = _baselines(lines, baseline)

    def paired(line: Line, column: Column) -> dict[Any, float]:
        found = {}
        for run in line.runs:
            value = run["metrics"]["after"].get(column.metric)
            if _value(run, columns) == column.value and value is not None:
                found[tuple(sorted((k, str(v)) for k, v in flattened(run).items() if below(k, pooled)))] = value
        return found

    tested = []
    for line in lines:
        if line in chosen or line.reference:
            tested.append(replace(line, baseline=not line.reference))
        elif other := _partner(line, chosen, baseline, pooled):
            ps = [paired_p(paired(line, column), paired(other, column)) for column in made]
            tested.append(replace(line, cells=[replace(cell, p=p) for cell, p in zip(line.cells, ps, strict=True)]))
        else:
            tested.append(line)
    return tested


def _baselines(lines: list[Line], baseline: str) -> list[Line]:
    """The rows that a method and filters name."""
    method, *filters = baseline.split()
    found = [line for line in lines if not line.reference and line.runs[0]["names"]["method"] == method]
    if not found:
        known = sorted({line.runs[0]["names"]["method"] for line in lines if not line.reference})
        raise ValueError(f"no run of the baseline '{method}': there are {', '.join(known)}")
    kept = {id(run) for run in selected([line.runs[0] for line in found], filters)}
    return [line for line in found if id(line.runs[0]) in kept]


def _partner(line: Line, chosen: list[Line], baseline: str, pooled: Sequence[str]) -> Line | None:
    """The baseline's row in the line's setting: of equal options in all that both have, but for the method's own."""
    ours = flattened(line.runs[0])

    def agrees(other: Line) -> bool:
        theirs = flattened(other.runs[0])
        common = (key for key in ours if key in theirs and not below(key, ("method", *pooled)))
        return _problem(other, pooled) == _problem(line, pooled) and all(
            str(ours[key]) == str(theirs[key]) for key in common
        )

    found = [other for other in chosen if agrees(other)]
    if len(found) > 1:
        one, two = (flattened(other.runs[0]) for other in found[:2])
        key = next(k for k in one if not below(k, pooled) and str(one[k]) != str(two.get(k)))
        raise ValueError(
            f"the baseline '{baseline}' has several rows in one setting: choose, e.g. "
            f"--baseline '{baseline} {key}={one[key]}'"
        )
    return found[0] if found else None


def _problem(line: Line, pooled: Sequence[str]) -> tuple[str, ...]:
    """Data, model and scenario, but for those pooled or spread over columns: methods are compared within one."""
    return tuple(line.runs[0]["names"][key] for key in APART if key not in ("method", *pooled))


def _with_best(lines: list[Line], made: list[Column], pooled: Sequence[str]) -> list[Line]:
    """Marks the best mean of each column whose metric has a direction, among rows of one problem; nothing where there
    is only one to choose from."""
    problems: dict[tuple, list[int]] = {}
    for i, line in enumerate(lines):
        if not line.reference:
            problems.setdefault(_problem(line, pooled), []).append(i)
    best: set[tuple[int, int]] = set()
    for members in problems.values():
        for j, column in enumerate(made):
            means = {i: lines[i].cells[j].spread.mean for i in members if lines[i].cells[j].spread}
            if column.better and len(means) > 1:
                top = (max if column.better == "higher" else min)(means.values())
                best |= {(i, j) for i, mean in means.items() if mean == top}
    return [
        replace(line, cells=[replace(cell, best=(i, j) in best) for j, cell in enumerate(line.cells)])
        for i, line in enumerate(lines)
    ]
