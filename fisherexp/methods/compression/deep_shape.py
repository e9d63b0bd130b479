"""DeepShape: weights of a trained model moved onto a generalized Gaussian of smaller shape, then a little training.

    w ← F⁻¹((rank(w) + 1/2) / n),   F of shape κ ν, location 0 and deviation σ · `scale`;   ν, σ² = E[w²] of the weights

Idea and factors: Wu et al., arXiv 2506.00486. The map is ours: the authors' code fills bins of a grid of step 2^-13 by
counts, with a limit for the tails, and narrows the scale β by 0.6. Here the order of the weights is kept without
exception, and so, by default, is their variance.
"""

import torch
from torch import nn

from fisherexp.config.types import Positive, Size
from fisherexp.methods.compression.coded_training import CodedTraining
from fisherexp.methods.compression.generalized_gaussian import estimated_shape, reshaped
from fisherexp.methods.compression.pruning import prunable
from fisherexp.methods.recipe import Recipe


@torch.no_grad()
def deep_shape_(model: nn.Module, factor: float, scale: float) -> dict[str, list[float]]:
    """Reshape the weights of each linear and convolutional layer. In place; its shape before and after, by name. Raises
    ValueError if there is none."""
    weights = prunable(model)
    if not weights:
        raise ValueError(f"{type(model).__name__} has no trainable linear or convolutional layer to reshape")
    shapes = {}
    for name, weight in weights.items():
        before = estimated_shape([weight])
        if before is not None:  # else all are zero, and have no order
            weight.copy_(reshaped(weight, factor * before, scale**2 * weight.double().square().mean().item()))
            shapes[name] = [before, estimated_shape([weight])]
    return shapes


class DeepShape(CodedTraining):
    """factor: κ, the new shape over the old. scale: the new deviation over the old.
    training: of the recovery; epochs=0 does not reshape either. fraction_bits: see CodedTraining.

    outcome: also shapes, of each layer before and after.
    """

    paper = "Wu et al., 2025, arXiv 2506.00486"
    start = "source"
    search = {"factor": "interval(0.4, 1)"}

    def __init__(
        self, model: nn.Module, factor: Positive, scale: Positive, training: Recipe, fraction_bits: Size
    ) -> None:
        super().__init__(model, training, fraction_bits)
        self.factor, self.scale = factor, scale

    def source_loaded(self) -> None:
        self.outcome["shapes"] = deep_shape_(self.model, self.factor, self.scale)
