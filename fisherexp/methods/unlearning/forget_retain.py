"""What objectives of two terms share: one of forgotten samples, one of retained ones, both in every step.

    L(θ) = γ · forgotten(B_f) + α · retained(B_r),   B_f ⊂ D_f, B_r ⊂ D_r

As in open-unlearning (Dorna et al. 2025, arXiv 2506.12618) there is one batch of each a step, and an epoch is one pass
over D_f, beside which D_r is gone through in part. `retained` is the mean loss over all tokens of the batch unless a
method says otherwise. AdamW at a constant rate; there it falls by a line after one epoch of warm-up.

Both batches go through the model as one: apart, batch normalization would see batches of forgotten samples only.
"""

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative, Positive
from fisherexp.data.batch import Batch
from fisherexp.data.composite import SideBySide
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.methods.unlearning.batches import forgotten_with_retained


class ForgetRetain(ERM):
    """A subclass gives the term of the forgotten samples. forget_weight: γ. retain_weight: α."""

    requires = ("class_labels or next_tokens",)
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "forget"
    weighs_samples = False

    def __init__(
        self,
        model: nn.Module,
        forget_weight: NonNegative,
        retain_weight: NonNegative,
        epochs: Count,
        lr: Positive,
        weight_decay: NonNegative,
    ) -> None:
        super().__init__(model, Recipe(epochs, "adamw", lr, 0.0, weight_decay, schedule="constant"))
        self.forget_weight, self.retain_weight = forget_weight, retain_weight

    @abstractmethod
    def forgotten(self, logits: Tensor, batch: Batch) -> Tensor:
        """The term of forgotten samples, a scalar. logits: `outputs` for the samples of `batch`."""

    def retained(self, logits: Tensor, batch: Batch) -> Tensor:
        """The term of retained samples, a scalar."""
        return self.objective.loss(logits, batch.targets)

    def outputs(self, inputs: Any) -> Tensor:
        """What both terms are formed of: logits."""
        return self.model(inputs)

    def batches(self, setting: Any) -> SideBySide:
        return forgotten_with_retained(setting)

    def loss(self, batch: Batch) -> Tensor:
        forget, logits = batch.tags["forgotten"], self.outputs(batch.inputs)
        forgotten = self.forgotten(logits[forget], batch.select(forget))
        retained = self.retained(logits[~forget], batch.select(~forget))
        return self.forget_weight * forgotten + self.retain_weight * retained
