"""SatImp: gradient ascent that spares what is forgotten already (saturation) and what is hopeless (importance).

Paper: Yang, Wang, Huang, Liu, Zhang, Han, ICML 2025, arXiv 2505.11953. With p = p_θ(y | x), taken as a constant,

    w(x, y) = p^β₁ (1 - p)^β₂
    L(θ) = -mean w CE(B_f) + c mean CE(B_r)

β₁ = β₂ = 0 is gradient ascent, β₁ alone SimSat, β₂ alone SimImp. The paper's samples are tokens of a language
model; here they are images of a class, and a mean over tokens becomes one over samples.

log(1 - p) is the log-sum-exp over the other classes. 1 - p itself is zero in single precision for the surest
samples, which would then never move.

Forgotten and retained samples go through the model as one batch. Apart, batch normalization would see batches of
one class, whose statistics are none of those used in testing, and the class may well stay.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.types import Count, NonNegative, Positive
from fisherexp.data.batch import Batch
from fisherexp.data.composite import SideBySide
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.methods.unlearning.batches import retained_with_forgotten


def satimp_weights(logits: Tensor, labels: Tensor, saturation: float, importance: float) -> Tensor:
    """p^saturation (1 - p)^importance of each sample, without gradient: logits (B, C), labels (B,) -> (B,)."""
    log_probabilities = logits.detach().log_softmax(1)
    own = log_probabilities.gather(1, labels[:, None]).squeeze(1)
    others = log_probabilities.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    return (saturation * own + importance * others).exp()


class Satimp(ERM):
    """saturation: β₁. importance: β₂. retain_weight: c. An epoch is one pass over the retained part."""

    paper = "Yang et al., ICML 2025, arXiv 2505.11953"
    requires = ("class_labels",)
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "retain"
    weighs_samples = False

    def __init__(
        self,
        model: nn.Module,
        saturation: NonNegative,
        importance: NonNegative,
        retain_weight: NonNegative,
        epochs: Count,
        lr: Positive,
        weight_decay: NonNegative,
    ) -> None:
        super().__init__(model, Recipe(epochs, "adamw", lr, 0.0, weight_decay, schedule="constant"))
        self.saturation, self.importance, self.retain_weight = saturation, importance, retain_weight

    def batches(self, setting: Any) -> SideBySide:
        return retained_with_forgotten(setting)

    def loss(self, batch: Batch) -> Tensor:
        forget, logits = batch.tags["forgotten"], self.model(batch.inputs)
        retained = F.cross_entropy(logits[~forget], batch.targets[~forget])
        logits, classes = logits[forget], batch.targets[forget]
        weights = satimp_weights(logits, classes, self.saturation, self.importance)
        forgotten = (weights * F.cross_entropy(logits, classes, reduction="none")).mean()
        return self.retain_weight * retained - forgotten
