"""How well a language model predicts the next token, summed as counts."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fisherexp.metrics.evaluation import Evaluation


class LanguageMetrics(Evaluation):
    """Of each part it is fed: cross-entropy per token in nats and in bits, perplexity (e to the nats) and next-token
    accuracy (%).

    update(part, logits (B, T, V), next tokens (B, T)); compute() -> {"<name>_nll": …, "<name>_bits": …,
    "<name>_perplexity": …, "<name>_accuracy": …}, means over all tokens but -100, whatever the batches. Where tokens
    are characters, bits are bits per character.
    """

    def __init__(self, names: tuple[str, ...]):
        super().__init__()
        self.names = names
        shown = {"nll": "NLL", "bits": "bits per\ntoken", "perplexity": "perplexity", "accuracy": "next\nacc. %"}
        self.headings = {f"{name}_{key}": f"{name} {words}" for name in names for key, words in shown.items()}
        self.better = {key: "higher" if key.endswith("_accuracy") else "lower" for key in self.headings}
        for state in ("correct", "nll", "count"):
            self.add_state(state, torch.zeros(len(names), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, part: int, logits: Tensor, labels: Tensor) -> None:
        self.correct[part] += (logits.argmax(-1) == labels).sum()
        self.nll[part] += F.cross_entropy(logits.float().flatten(0, -2), labels.flatten(), reduction="sum")
        self.count[part] += (labels >= 0).sum()

    def compute(self) -> dict[str, float]:
        found = {}
        for i, name in enumerate(self.names):
            nats = self.nll[i] / self.count[i]
            found[f"{name}_nll"], found[f"{name}_bits"] = nats.item(), nats.item() / math.log(2)
            found[f"{name}_perplexity"] = nats.exp().item()  # infinite from 710 nats on, where math.exp raises
            found[f"{name}_accuracy"] = 100 * (self.correct[i] / self.count[i]).item()
        return found
