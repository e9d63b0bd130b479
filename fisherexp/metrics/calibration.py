"""Calibration: does a model that says 80 % turn out right in 80 % of cases?

Expected and maximal calibration error over equal-width bins (Naeini et al., AAAI 2015; Guo et al., ICML 2017, arXiv
1706.04599), Brier score, and temperature scaling as the control that needs no other training. Sums per bin suffice,
so one pass over the data is enough and its memory does not grow with them.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.utilities import dim_zero_cat

from fisherexp.metrics.classification import ClassificationMetrics

BINS = 15
HOTTEST = 100.0  # limits of the fitted temperature: without a single error the best one would be zero


def bin_sums(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> Tensor:
    """Per interval (k/bins, (k+1)/bins] of confidence: samples, sum of confidence, hits; (bins, 3) in float64.

    probabilities (B, C), labels (B,). The confidence is the largest probability.
    """
    confidence, predicted = probabilities.max(1)
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype, device=confidence.device)
    member = F.one_hot(torch.bucketize(confidence, edges[1:-1]), bins).double()
    return member.T @ torch.stack([torch.ones_like(confidence), confidence, predicted == labels], 1).double()


def calibration_errors(sums: Tensor) -> tuple[float, float]:
    """(ECE, MCE) of bin sums: Σ_b n_b/n |acc_b - conf_b| and max_b |acc_b - conf_b|, in [0, 1]."""
    count, confidence, hits = sums.unbind(1)
    gap = (hits - confidence).abs()
    return (gap.sum() / count.sum()).item(), (gap / count.clamp(min=1)).max().item()


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T in [1/100, 100] for which softmax(logits / T) has the least negative log-likelihood.

    logits (n, C), labels (n,). The loss is convex in 1/T, so its slope is bisected.
    """
    logits = logits.double()
    true = logits.gather(1, labels[:, None]).mean()
    cold, hot = 1 / HOTTEST, HOTTEST
    for _ in range(60):
        middle = (cold * hot) ** 0.5
        slope = ((logits / middle).softmax(1) * logits).sum(1).mean() - true  # in 1/T: positive, T is too low
        cold, hot = (middle, hot) if slope > 0 else (cold, middle)
    return (cold * hot) ** 0.5


class CalibrationMetrics(ClassificationMetrics):
    """Accuracy (%), NLL (nats), ECE, MCE and Brier score (sum over classes) of each part it is fed.

    held_out: name of a part that is not evaluated but used to fit a temperature; then there are also `temperature`,
    and `<name>_ece_scaled`: the ECE at that temperature. Only then are logits kept.
    """

    def __init__(self, names: tuple[str, ...], held_out: str | None = None):
        super().__init__(names)
        self.held_out = held_out
        evaluated = [name for name in names if name != held_out]
        shown = {"accuracy": "acc. %", "nll": "NLL", "ece": "ECE"} | ({"ece_scaled": "ECE, T"} if held_out else {})
        self.headings = {f"{name}_{key}": f"{name}\n{words}" for name in evaluated for key, words in shown.items()}
        self.better = {name: "higher" if name.endswith("_accuracy") else "lower" for name in self.headings}
        self.add_state("bins", torch.zeros(len(names), BINS, 3, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("brier", torch.zeros(len(names), dtype=torch.float64), dist_reduce_fx="sum")
        for name in names if held_out else ():
            self.add_state(f"logits_{name}", [], dist_reduce_fx="cat")
            self.add_state(f"labels_{name}", [], dist_reduce_fx="cat")

    def update(self, part: int, logits: Tensor, labels: Tensor) -> None:
        super().update(part, logits, labels)
        probabilities = logits.float().softmax(1)
        self.bins[part] += bin_sums(probabilities, labels)
        self.brier[part] += (probabilities - F.one_hot(labels, logits.shape[1])).square().sum()
        if self.held_out:
            getattr(self, f"logits_{self.names[part]}").append(logits.float())
            getattr(self, f"labels_{self.names[part]}").append(labels)

    def compute(self) -> dict[str, float]:
        found = super().compute()
        if self.raw_outputs:
            return found
        for i, name in enumerate(self.names):
            found[f"{name}_ece"], found[f"{name}_mce"] = calibration_errors(self.bins[i])
            found[f"{name}_brier"] = (self.brier[i] / self.count[i]).item()
        if self.held_out:
            found["temperature"] = fit_temperature(*self._kept(self.held_out))
            for name in self.names:
                if name != self.held_out:
                    logits, labels = self._kept(name)
                    sums = bin_sums((logits / found["temperature"]).softmax(1), labels)
                    found[f"{name}_ece_scaled"] = calibration_errors(sums)[0]
        return found

    def _kept(self, name: str) -> tuple[Tensor, Tensor]:
        return dim_zero_cat(getattr(self, f"logits_{name}")), dim_zero_cat(getattr(self, f"labels_{name}"))
