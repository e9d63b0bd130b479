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
        means = {f: statistics.fmean(found[f"{name}_{f}"] for name in self.names) for f in ("accuracy", "nll")}
        return {f"mean_{figure}": value for figure, value in means.items()} | found
