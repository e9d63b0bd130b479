"""Accuracy by domain, and what a study of generalization asks of it."""

import statistics

from fisherexp.metrics.classification import ClassificationMetrics


class DomainMetrics(ClassificationMetrics):
    """Accuracy (%) of each part it is fed, and of groups of them.

    names: of the parts: train_<domain>, held_out_<domain>, target and any others.
    compute() -> {"<part>_accuracy": …}, and
    train_accuracy, held_out_accuracy: means over the training domains, each counted alike.
    worst_accuracy: the lowest of the training domains, on held-out data where there are any.
    """

    def __init__(self, names: tuple[str, ...]):
        super().__init__(names)
        others = [name for name in names if not name.startswith(("train_", "held_out_"))]
        self.groups = {
            group: tuple(name for name in names if name.startswith(f"{group}_")) for group in ("train", "held_out")
        }
        shown = {"train": "train", "held_out": "held-out", "worst": "worst"}
        shown |= {name: name.replace("_", " ") for name in others}
        self.headings = {f"{name}_accuracy": f"{words}\nacc. %" for name, words in shown.items()}
        self.better = dict.fromkeys(self.headings, "higher")

    def compute(self) -> dict[str, float]:
        found = {name: value for name, value in super().compute().items() if name.endswith("_accuracy")}
        for group, names in self.groups.items():
            if names:
                accuracies = [found[f"{name}_accuracy"] for name in names]
                found[f"{group}_accuracy"] = statistics.fmean(accuracies)
                found["worst_accuracy"] = min(accuracies)  # of held-out parts, which come last
        return found
