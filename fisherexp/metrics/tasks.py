"""Accuracy by task."""

import statistics

from fisherexp.metrics.classification import ClassificationMetrics


class TaskMetrics(ClassificationMetrics):
    """Accuracy (%) and mean negative log-likelihood (nats) of each task it is fed, by name.

    compute() -> {"mean_accuracy": …, "mean_nll": …} of the tasks, each counted alike; "<task>_accuracy", "<task>_nll".
    """

    def __init__(self, names: tuple[str, ...]):
        super().__init__(names)
        tables = {"mean_accuracy": "mean\nacc. %"} | {f"{name}_accuracy": f"{name}\nacc. %" for name in names}
        self.headings = {metric: heading.replace("_", " ") for metric, heading in tables.items()}
        self.better = {"mean_accuracy": "higher", "mean_nll": "lower"} | self.better

    def compute(self) -> dict[str, float]:
        found = super().compute()
        kinds = ("accuracy",) if self.raw_outputs else ("accuracy", "nll")
        means = {f: statistics.fmean(found[f"{name}_{f}"] for name in self.names) for f in kinds}
        return {f"mean_{figure}": value for figure, value in means.items()} | found


class SequenceMetrics(TaskMetrics):
    """Of tasks learned one after the other: TaskMetrics of the end, and

    validation_accuracy: mean over tasks of the accuracy (%) on images put aside, to choose on; these parts come behind
        those of all tasks, in the same order.
    forgetting: see below, where `history` was set.
    loss_rise: mean over former tasks of the negative log-likelihood (nats) minus the lowest it ever was, where `losses`
        was set.

    history: a_{t,i}, accuracy (%) on task i after task t, for every task t but the last; None where there is none.
    losses: the same of negative log-likelihoods.
    """

    def __init__(self, tasks: tuple[str, ...]):
        aside = tuple(f"{task}_aside" for task in tasks)
        super().__init__((*tasks, *aside))
        self.tasks, self.history, self.losses = tasks, None, None
        # Not those of every task: they may be many, and the outcome has them after each.
        added = {"forgetting": "forgetting\n%", "validation_accuracy": "validation\nacc. %"}
        self.headings = {"mean_accuracy": self.headings["mean_accuracy"]} | added
        ours = ["mean_accuracy", *(f"{task}_accuracy" for task in tasks), "validation_accuracy"]
        self.better = dict.fromkeys(ours, "higher") | {"forgetting": "lower", "loss_rise": "lower"}

    def compute(self) -> dict[str, float]:
        found = ClassificationMetrics.compute(self)
        accuracies = [found[f"{task}_accuracy"] for task in self.tasks]
        metrics = {"mean_accuracy": statistics.fmean(accuracies)}
        metrics["validation_accuracy"] = statistics.fmean(found[f"{task}_aside_accuracy"] for task in self.tasks)
        metrics |= {n: found[n] for task in self.tasks for n in (f"{task}_accuracy", f"{task}_nll") if n in found}
        if self.history:
            metrics["forgetting"] = forgetting([*self.history, accuracies])
        if self.losses:
            losses = [*self.losses, [found[f"{task}_nll"] for task in self.tasks]]
            metrics["loss_rise"] = forgetting([[-loss for loss in row] for row in losses])
        return metrics


def forgetting(accuracy: list[list[float]]) -> float:
    """Mean over the former tasks i of max_{t < T} a_{t,i} - a_{T,i}, with a_{t,i} = `accuracy[t][i]`, T the last row.

    Chaudhry et al., ECCV 2018, arXiv 1801.10112. Negative where later tasks helped.
    Raises ValueError for fewer than two rows.
    """
    *before, last = accuracy
    if not before:
        raise ValueError("of a single task nothing can be forgotten: at least two rows are needed")
    return statistics.fmean(max(row[i] for row in before) - last[i] for i in range(len(before)))
