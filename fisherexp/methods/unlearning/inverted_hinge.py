"""Inverted hinge loss (of LoKU): hand the probability of the forgotten class to the runner-up.

Paper: Cha, Cho, Hwang, Lee, ICLR 2025, arXiv 2408.06621. With p = softmax(f(x)), for a sample (x, y) of D_f,

    IHL(x, y) = 1 + p_y - max_{v ≠ y} p_v   ∈ [0, 2]
    L(θ) = mean IHL(B_f) + w mean CE(B_r),   w = 1 as published

Unlike the loss of gradient ascent it is bounded, and its gradient fades as the runner-up takes over: with s the
runner-up, ∂/∂z_y = p_y (1 + p_s - p_y), ∂/∂z_s = -p_s (1 + p_y - p_s), else ∂/∂z_v = p_v (p_s - p_y).

The paper's samples are tokens of a language model, and means are over all tokens of a batch; an image with a class is
a sequence of one token. The paper's other half, Fisher-weighted initial values of low-rank adapters (FILA), is
method=loku; here all weights are trained.

Forgotten and retained samples go through the model as one batch. Apart, batch normalization would see batches of
one class, whose statistics are none of those used in testing, and the class may well stay.
"""

from typing import Any

from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative, Positive
from fisherexp.data.batch import Batch
from fisherexp.data.composite import SideBySide
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.methods.unlearning.batches import retained_with_forgotten
from fisherexp.methods.unlearning.sequence_losses import counted


def inverted_hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """1 + p_y - max_{v ≠ y} p_v of each token or sample: logits (N, V), labels (N,) -> (N,)."""
    probabilities = logits.softmax(1)
    own = probabilities.gather(1, labels[:, None])
    others = probabilities.scatter(1, labels[:, None], -1.0)  # below every probability
    return 1 + own.squeeze(1) - others.max(1).values


class InvertedHinge(ERM):
    """retain_weight: w. An epoch is one pass over the retained part."""

    paper = "Cha et al., ICLR 2025, arXiv 2408.06621"
    requires = ("class_labels or next_tokens",)
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "retain"
    weighs_samples = False

    def __init__(
        self, model: nn.Module, retain_weight: NonNegative, epochs: Count, lr: Positive, weight_decay: NonNegative
    ) -> None:
        super().__init__(model, Recipe(epochs, "adamw", lr, 0.0, weight_decay, schedule="constant"))
        self.retain_weight = retain_weight

    def batches(self, setting: Any) -> SideBySide:
        return retained_with_forgotten(setting)

    def loss(self, batch: Batch) -> Tensor:
        forget, logits = batch.tags["forgotten"], self.model(batch.inputs)
        retained = self.objective.loss(logits[~forget], batch.targets[~forget])
        forgotten = inverted_hinge(*counted(logits[forget], batch.targets[forget])).mean()
        return forgotten + self.retain_weight * retained
