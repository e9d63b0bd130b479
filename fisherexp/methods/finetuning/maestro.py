"""Maestro: factors of full rank, trained with one layer at a time cut off at a random rank, and shrunk on the way.

    W = U V;   each step:  L(p) + KL(p ‖ p_cut) + λ · group lasso,   p of the whole network and p_cut of that with
    U[:, :k] V[:k] in one layer;   after each epoch components of importance below ε are dropped

Paper: Horváth, Laskaridis, Rajput, Wang, ICML 2024, arXiv 2308.14929; decomposition in fisherexp/adapters/maestro.py.
As in the authors' code each pair of a layer and a width comes once in a random order, then another order; the list is
made anew after shrinking. full_pass=false: L(p_cut) + λ · group lasso. sampling=false: nothing is cut, the control.

The record holds the products U V at the ranks that were found: `method=svd source=run` cuts them further. BatchNorm
layers keep the statistics of all passes, cut and not; the authors compute them again for each width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import NonNegative
from fisherexp.data.batch import Batch
from fisherexp.methods.finetuning.from_scratch import FromScratch
from fisherexp.methods.finetuning.output_penalties import divergence
from fisherexp.objectives.token_prediction import IGNORED


def shuffled_pairs(widths: list[int]) -> list[tuple[int, int]]:
    """Every (number of a layer, width 1 … its own) once, in a random order."""
    pairs = [(layer, width) for layer, kept in enumerate(widths) for width in range(1, kept + 1)]
    return [pairs[i] for i in torch.randperm(len(pairs)).tolist()]


class Maestro(FromScratch):
    """penalty: λ. threshold: ε. full_pass: whether the whole network is trained beside the cut one. sampling: whether
    widths are cut at all. Others as for FromScratch.

    outcome: also ranks, how many components each layer has kept.
    """

    name = "maestro"
    paper = "Horváth et al., ICML 2024, arXiv 2308.14929"
    requires = ("class_labels or next_tokens",)
    weighs_samples = False
    search = {"training.lr": "tag(log, interval(1e-2, 1))", "penalty": "tag(log, interval(1e-6, 1e-2))"}
    counts_with = {
        "threshold": {"threshold": 10.0},
        "by_layer": {"by_layer": {"backbone": {"penalty_weight": 1.0}}},
    }

    def __init__(
        self,
        model: nn.Module,
        penalty: NonNegative,
        threshold: NonNegative,
        full_pass: bool,
        sampling: bool,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.penalty, self.threshold, self.full_pass, self.sampling = penalty, threshold, full_pass, sampling
        self.pairs: list[tuple[int, int]] = []  # still to come

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        return adapters.Maestro(weight, **{"penalty_weight": self.penalty} | options)

    def loss(self, batch: Batch) -> Tensor:
        if not self.sampling:
            return super().loss(batch)
        penalty = adapters.penalty(self.model).to(self.device)
        cut = self._cut_outputs(batch)
        if not self.full_pass:
            return self.objective.loss(cut, batch.targets) + penalty
        whole, counted = self.model(batch.inputs), batch.targets != IGNORED
        taught = divergence(cut[counted], whole.detach()[counted])
        return self.objective.loss(whole, batch.targets) + taught + penalty

    def _cut_outputs(self, batch: Batch) -> Tensor:
        """Outputs with the next width in the next layer."""
        found = adapters.adapters(self.model)
        if not self.pairs:
            self.pairs = shuffled_pairs([int(adapter.kept) for adapter in found])
        layer, width = self.pairs.pop()
        found[layer].width = width
        outputs = self.model(batch.inputs)
        found[layer].width = None
        return outputs

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        super().optimizer_step(*args, **options)
        if self.trainer.global_step % self.steps_per_epoch == 0:
            shrunk = [adapter.shrink(self.threshold) for adapter in adapters.adapters(self.model)]
            self.pairs = [] if any(shrunk) else self.pairs

    def merge(self) -> None:
        layers = adapters.adapted_layers(self.model)
        self.outcome["ranks"] = {name: int(layer.adapters[0].kept) for name, layer in layers.items()}
        super().merge()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["pairs"] = [list(pair) for pair in self.pairs]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.pairs = [tuple(pair) for pair in checkpoint["pairs"]]
