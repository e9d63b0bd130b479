"""Adaptive SSD: the threshold is a percentile of the importance ratios themselves.

Paper: Schoepf, Foster, Brintrup, arXiv 2402.10098 (data entry errors in tables). With I the importance of SSD,

    ρ_j = I_f[j] / I_r[j];   α = P-th percentile of all finite ρ_j,   P = 100 - ln(1 + 100 |D_f| / |D|)
    θ_j ← min(I_r[j] / I_f[j], 1) θ_j   where I_f[j] > α I_r[j]

so that about ln(1 + 100 |D_f|/|D|) percent of the weights are dampened, whatever their ratios. The reference is the
retained part, not all data as in SSD: its ratios have no bound, and an α of the one is none of the other.
Left out: the floor on the shrinkage that the official code offers (0 in the paper), and the epoch of fine-tuning that
the paper reports besides.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.curvature import DiagonalAccumulator
from fisherexp.data.batch import Batch
from fisherexp.data.composite import InTurn
from fisherexp.methods.curvature import reduce_over_ranks
from fisherexp.methods.importance import Importance
from fisherexp.methods.method import ModelMethod
from fisherexp.methods.unlearning.dampening import dampen_model, one_then_forgotten
from fisherexp.seeds import derive


def percentile_for(forgotten: int, total: int) -> float:
    """P, from the sizes of D_f and D."""
    return 100 - math.log(1 + 100 * forgotten / total)


def percentile_ratio(forget: dict[str, Tensor], retain: dict[str, Tensor], percentile: float) -> float:
    """The `percentile`-th percentile (linear between values) of the finite forget / retain ratios, over all weights.
    Infinite where there is none: then no α is too high."""
    ratios = torch.cat([(forget[name] / retain[name]).flatten().double() for name in forget])
    ratios = ratios[ratios.isfinite()].sort().values
    if not len(ratios):
        return math.inf
    position = percentile / 100 * (len(ratios) - 1)
    below, above = ratios[math.floor(position)], ratios[math.ceil(position)]
    return float(below + (above - below) * (position - math.floor(position)))


class ASSD(ModelMethod):
    """Importance of the retained and of the forgotten part in one epoch, then one edit. No threshold to choose."""

    paper = "Schoepf et al., arXiv 2402.10098"
    scenarios = ("forgetting",)
    start = "source"
    steps_itself = True
    fits_on = "train"

    def __init__(self, model: nn.Module, importance: Importance) -> None:
        super().__init__(model)
        self.importance = importance
        self.percentile, self.seed = float("nan"), 0
        self.accumulators: dict[str, DiagonalAccumulator] = {}
        self._restored: dict[str, dict[str, Tensor]] = {}
        self._drawn_from: dict[str, Tensor] = {}  # states of what sampled labels are drawn from

    def batches(self, setting: Any) -> InTurn:
        self.percentile = percentile_for(len(setting.parts["forget"]), len(setting.parts["train"]))
        self.seed = setting.seed
        return one_then_forgotten(setting, "retain", self.importance, self.importance.batches_per_update)

    def on_train_start(self) -> None:
        for part in ("retain", "forget"):
            self.accumulators[part] = self.importance.accumulator(
                self.model, derive("labels", self.seed, part), self.objective.likelihood
            )
            if part in self._restored:
                self.accumulators[part].load_sums(self._restored[part])
            if part in self._drawn_from:
                self.accumulators[part].generator.set_state(self._drawn_from[part].cpu())

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        part = "forget" if batch.tags["forget_pass"].all() else "retain"
        self.accumulators[part].update(batch.inputs, batch.targets, batch.weights)

    def on_train_end(self) -> None:
        found = {}
        for part, accumulator in self.accumulators.items():
            if self.importance.gradients == "per_sample":  # of batch means every rank has all
                reduce_over_ranks(accumulator)
            found[part] = dict(accumulator.result().items())
        alpha = percentile_ratio(found["forget"], found["retain"], self.percentile)
        self.outcome = dampen_model(self.model, found["forget"], found["retain"], alpha, 1.0)
        self.outcome["percentile"] = self.percentile

    def configure_optimizers(self) -> None:
        return None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        sums = {part: accumulator.sums() for part, accumulator in self.accumulators.items()}
        checkpoint["fishers"] = {part: {n: total.clone() for n, total in found.items()} for part, found in sums.items()}
        streams = {part: accumulator.generator for part, accumulator in self.accumulators.items()}
        checkpoint["labels"] = {part: stream.get_state() for part, stream in streams.items() if stream is not None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._restored, self._drawn_from = checkpoint["fishers"], checkpoint["labels"]
