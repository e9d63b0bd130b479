"""Training from scratch with reparametrized weights: all that is no adapted weight is trained as it is.

    min_φ  (1/n) Σ_i  ℓ(f(x_i; θ(φ)), y_i),   θ(φ) = what the adapters make of a new network's weights

The record holds an ordinary model of the weights θ(φ) at the end.
"""

from typing import Any

from torch import nn

from fisherexp import adapters
from fisherexp.config.types import AtLeastOne, Pattern
from fisherexp.methods.finetuning.finetuning import AdapterTuning
from fisherexp.methods.recipe import Recipe


class FromScratch(AdapterTuning):
    """A subclass makes the adapter of a weight (`adapter`), which need not keep what the weight was.

    training: the recipe. targets, exclude, by_layer: as for AdapterTuning.

    outcome: as for AdapterTuning; relative_change is that since the new network.
    """

    start = "scratch"

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        targets: Pattern | AtLeastOne[str],
        exclude: Pattern | None = None,
        by_layer: dict[Pattern, dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(model, training, targets, exclude, by_layer, trained="")  # found in every name

    def setup(self, stage: str) -> None:
        # Before the fit, and before a saved state is loaded, which holds the adapters.
        if stage == "fit":
            self.source_loaded()

    def freeze(self) -> None:
        super().freeze()
        for layer in adapters.adapted_layers(self.model).values():
            layer.frozen_weight.requires_grad_(False)
