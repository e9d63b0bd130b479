"""Which run and which of its checkpoints count: the three selection methods of DomainBed, never mixed.

Gulrajani, Lopez-Paz, ICLR 2021, arXiv 2007.01434. All read the checkpoints that callbacks=[domain_selection] or
[domain_watch] record; a sweep is one method on one target, and on the same samples, with several draws of its
hyper-parameters.

    training-domain validation: the run and checkpoint with the best mean accuracy on held-out data of the training
        domains. Needs scenario.holdout > 0.
    oracle: last checkpoints only; the run with the best accuracy on held-out data of the target itself, which a
        deployment does not have. With scenario.holdout=0 there is none.
    leave-one-domain-out: the draw and checkpoint with the best mean accuracy on a further domain that was left out,
        over all choices of it (scenario.leave_out=…); reported is the run that leaves out none, at that step.

Reported is always the accuracy on the target's other part ('target').
"""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from fisherexp.reports.table import Grid, mean_and_deviation
from fisherexp.runs.identity import digest

Record = dict[str, Any]
# Options of data that say how samples are read and handed out, not which they are: some are drawn as hyper-parameters.
# The seed of a choice of images goes with the run's.
HANDLING = {"batch_size", "eval_batch_size", "augment", "in_memory", "workers", "root", "download", "seed"}


@dataclass(frozen=True)
class Choice:
    """run: the chosen record. step: of the chosen checkpoint. score: what it was chosen by (%). accuracy: on the target
    (%)."""

    run: Record
    step: int
    score: float
    accuracy: float


def checkpoints(run: Record) -> list[dict[str, Any]]:
    """What was recorded along the way; empty where nothing was."""
    return run.get("outcome", {}).get("domain_watch", [])


def left_out(run: Record) -> str | None:
    """The further domain that was left out of training."""
    return run["config"]["scenario"]["leave_out"] if "left_out_accuracy" in checkpoints(run)[0] else None


class TrainingDomainValidation:
    """Chooses by held-out data of the training domains."""

    name = "training-domain validation"

    def choose(self, runs: Iterable[Record]) -> Choice | None:
        """The choice among runs of one sweep; None where no run has what this method reads."""
        return _best(
            Choice(run, point["step"], point["held_out_accuracy"], point["target_accuracy"])
            for run in runs
            if left_out(run) is None
            for point in checkpoints(run)
            if "held_out_accuracy" in point
        )


class Oracle:
    """Chooses by held-out data of the target, among last checkpoints."""

    name = "oracle"

    def choose(self, runs: Iterable[Record]) -> Choice | None:
        """As above."""
        return _best(
            Choice(run, point["step"], point["target_held_out_accuracy"], point["target_accuracy"])
            for run in runs
            if left_out(run) is None
            for point in checkpoints(run)[-1:]
            if "target_held_out_accuracy" in point
        )


class LeaveOneDomainOut:
    """Chooses by domains left out besides the target. A draw counts once every training domain was left out in turn:
    `scenario.leave_out=<all domains>` makes those runs, and the one without, in one sweep."""

    name = "leave-one-domain-out"

    def choose(self, runs: Iterable[Record]) -> Choice | None:
        """As above; runs with and without `leave_out`, of the same settings otherwise."""
        families: dict[str, list[Record]] = {}
        for run in runs:
            families.setdefault(_but_for_leave_out(run), []).append(run)
        choices = []
        for family in families.values():
            whole = [run for run in family if left_out(run) is None]
            others = {left_out(run): run for run in family if left_out(run) is not None}
            if not whole or set(others) != _training_domains(whole[0]):
                continue
            # Epochs differ in length when another domain is left out; checkpoints are counted in epochs.
            columns = zip(checkpoints(whole[0]), *map(checkpoints, others.values()), strict=False)
            for point, *rest in columns:
                score = fmean(other["left_out_accuracy"] for other in rest)
                choices.append(Choice(whole[0], point["step"], score, point["target_accuracy"]))
        return _best(choices)


SELECTIONS = (TrainingDomainValidation(), Oracle(), LeaveOneDomainOut())
ORDER = [selection.name for selection in SELECTIONS]


def selected(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Rows {data, model, method, target, seed, selection, runs, step, accuracy} for each sweep and each selection
    method that its runs allow. Runs whose samples differ are of different sweeps; `data` then says by which options."""
    followed = [record for record in records if checkpoints(record)]
    sweeps: dict[tuple, list[Record]] = {}
    for record, title in zip(followed, _titles(followed), strict=True):
        names = (title, *(record["names"][key] for key in ("model", "method")))
        key = (*names, record["config"]["scenario"]["target"] or "last domain", record["seed"])
        sweeps.setdefault(key, []).append(record)
    rows = []
    for key, runs in sorted(sweeps.items()):
        for selection in SELECTIONS:
            if choice := selection.choose(runs):
                row = dict(zip(("data", "model", "method", "target", "seed"), key, strict=True))
                rows.append(
                    row
                    | {"selection": selection.name, "runs": len(runs)}
                    | {"step": choice.step, "accuracy": choice.accuracy}
                )
    return rows


def grids(rows: list[dict[str, Any]]) -> list[Grid]:
    """A table for each data set and model: a line per method and way of choosing, a column per target, their mean."""
    found = []
    for data, model in sorted({(row["data"], row["model"]) for row in rows}):
        own = [row for row in rows if (row["data"], row["model"]) == (data, model)]
        targets = sorted({row["target"] for row in own})
        lines = []
        for key in sorted({(row["method"], ORDER.index(row["selection"])) for row in own}):
            line = [row for row in own if (row["method"], ORDER.index(row["selection"])) == key]
            accuracies = [[row["accuracy"] for row in line if row["target"] == target] for target in targets]
            counts = [len(values) for values in accuracies]
            cells = [mean_and_deviation("acc. %", values) for values in accuracies]
            # Of targets counted alike, once there are all of them.
            mean = [[fmean(map(fmean, accuracies))]] if all(accuracies) and len(targets) > 1 else []
            cells += [mean_and_deviation("acc. %", values) for values in mean or [[]]]
            lines.append(
                [key[0], ORDER[key[1]], " to ".join(dict.fromkeys(map(str, (min(counts), max(counts))))), *cells]
            )
        heads = ["method", "selection", "n", *(f"{target}\nacc. %" for target in targets), "mean\nacc. %"]
        note = "accuracy on the target; ways of selection use different data and are not to be compared; n seeds each"
        found.append(Grid(f"{data}, {model}", heads, 2, lines, [note]))
    return found


def _titles(records: list[Record]) -> list[str]:
    """For each record the name of its data, with the options in which others of that name have other samples."""
    options = [_samples(record) for record in records]
    values: dict[tuple[str, str], set[str]] = {}
    for record, found in zip(records, options, strict=True):
        for name, value in found.items():
            values.setdefault((record["names"]["data"], name), set()).add(value)
    titles = []
    for record, found in zip(records, options, strict=True):
        data = record["names"]["data"]
        titles.append(", ".join([data, *(f"{n}={v}" for n, v in found.items() if len(values[data, n]) > 1)]))
    return titles


def _samples(record: Record) -> dict[str, str]:
    """Options that say which samples there are, but for the target and what is left out beside it."""
    nodes = {"data": HANDLING, "scenario": {"target", "leave_out"}}
    return {
        f"{node}.{name}": str(value)
        for node, others in nodes.items()
        for name, value in record["config"].get(node, {}).items()
        if name not in others
    }


def _best(choices: Iterable[Choice]) -> Choice | None:
    return max(choices, key=lambda choice: choice.score, default=None)


def _but_for_leave_out(run: Record) -> str:
    semantic = run["semantic"]
    scenario = {key: value for key, value in semantic["scenario"].items() if key != "leave_out"}
    return digest(semantic | {"scenario": scenario})


def _training_domains(run: Record) -> set[str]:
    parts = (name.removesuffix("_accuracy") for name in checkpoints(run)[0])
    return {part.removeprefix("train_") for part in parts if part.startswith("train_")}
