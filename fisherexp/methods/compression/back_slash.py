"""BackSlash: training with a price on the code length of the weights, as a generalized Gaussian prior gives it.

    after each step of the optimizer:  w ← w - λ/N · ν sign(w) (|w| + ε)^(ν - 1),   ν estimated before, N of all weights

This is a step down λ/N Σ (|w| + ε)^ν at constant ν, of unit length whatever the learning rate. Wu et al., ICML
2025, arXiv 2504.16968; update and estimator as in the authors' code for arXiv 2506.00486. With its ε = 1 the step is
near λ ν / N for all usual weights. The published λ = 2000 belongs to N of 1e8 and more; here the option is λ/N, which
is what counts. At ν = 1 the penalty is L1, at ν = 2 it is L2, where ε = 0.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import NonNegative, Positive, Probability, Size
from fisherexp.methods.compression.coded_training import CodedTraining
from fisherexp.methods.compression.generalized_gaussian import estimated_shape
from fisherexp.methods.recipe import Recipe


def shrinkage(weights: Tensor, shape: float, offset: float) -> Tensor:
    """d/dw Σ (|w| + ε)^ν at constant ν, entry by entry; zero where w is."""
    return shape * weights.sign() * (weights.abs() + offset).pow(shape - 1)


class BackSlash(CodedTraining):
    """strength: λ/N; 0 is plain training. shape: ν, or None to estimate it in every step. offset: ε.
    by: estimate one ν for the whole model, or one for each parameter tensor.
    free: share of the epochs, the last ones, that are trained without the price.
    training: the recipe. fraction_bits: see CodedTraining.
    """

    paper = "Wu et al., ICML 2025, arXiv 2504.16968"
    search = {"strength": "tag(log, interval(1e-6, 1e-3))"}
    counts_with = {"by": {"shape": None}}

    def __init__(
        self,
        model: nn.Module,
        strength: NonNegative,
        shape: Positive | None,
        offset: Positive,
        by: Literal["model", "layer"],
        free: Probability,
        training: Recipe,
        fraction_bits: Size,
    ) -> None:
        super().__init__(model, training, fraction_bits)
        self.strength, self.shape, self.offset, self.by = strength, shape, offset, by
        self.priced_epochs = round((1 - free) * self.epochs)

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        super().optimizer_step(*args, **options)
        if self.strength and self.current_epoch < self.priced_epochs:
            self.shrink()

    @torch.no_grad()
    def shrink(self) -> None:
        """One step down the price of the trainable parameters."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for group in [parameters] if self.by == "model" else [[parameter] for parameter in parameters]:
            shape = self.shape or estimated_shape(group)
            if shape is not None:  # else they are all zero
                for parameter in group:
                    parameter.sub_(self.strength * shrinkage(parameter, shape, self.offset))

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        if shape := estimated_shape(self.model.parameters()):
            self.log("train/shape", shape)
