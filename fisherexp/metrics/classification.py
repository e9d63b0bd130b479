"""Accuracy and likelihood, summed as counts: one update per batch, one synchronization at the end."""

import torch
from torch.nn import functional as F

from fisherexp.metrics.evaluation import Evaluation


class ClassificationMetrics(Evaluation):
    """Accuracy (%) and mean negative log-likelihood (nats) of each part it is fed.

    update(part, logits (B, C), labels (B,)), or of text logits (B, T, V) and the next tokens (B, T), each of which
    counts but -100; compute() -> {"<name>_accuracy": …, "<name>_nll": …}.
    """

    def __init__(self, names: tuple[str, ...]):
        super().__init__()
        self.names = names
        self.headings = {f"{name}_accuracy": f"{name}\nacc. %" for name in names}
        self.headings |= {f"{name}_nll": f"{name}\nNLL" for name in names}
        self.better = {f"{name}_accuracy": "higher" for name in names} | {f"{name}_nll": "lower" for name in names}
        for state in ("correct", "nll", "count"):
            self.add_state(state, torch.zeros(len(names), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, part: int, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self.correct[part] += (logits.argmax(-1) == labels).sum()
        self.nll[part] += F.cross_entropy(logits.float().flatten(0, -2), labels.flatten(), reduction="sum")
        self.count[part] += (labels >= 0).sum()

    def compute(self) -> dict[str, float]:
        found = {}
        for i, name in enumerate(self.names):
            found[f"{name}_accuracy"] = 100 * (self.correct[i] / self.count[i]).item()
            if not self.raw_outputs:
                found[f"{name}_nll"] = (self.nll[i] / self.count[i]).item()
        return found
