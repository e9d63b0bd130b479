"""SatImp: gradient ascent that spares what is forgotten already (saturation) and what is hopeless (importance).

Paper: Yang, Wang, Huang, Liu, Zhang, Han, ICML 2025, arXiv 2505.11953. With p = p_θ(y | x), taken as a constant,

    w(x, y) = p^β₁ (1 - p)^β₂
    L(θ) = -mean w CE(B_f) + c mean CE(B_r)

β₁ = β₂ = 0 is gradient ascent, β₁ alone SimSat, β₂ alone SimImp. The paper's samples are tokens of a language model,
and means are over all tokens of a batch; an image with a class is a sequence of one token. Weights that are coarser or
harder than one a token: see satimp_weights.py.

Forgotten and retained samples go through the model as one batch. Apart, batch normalization would see batches of
one class, whose statistics are none of those used in testing, and the class may well stay.
"""

from typing import Any, Literal

from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative, Positive, Probability
from fisherexp.data.batch import Batch
from fisherexp.data.composite import SideBySide
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.methods.unlearning.batches import retained_with_forgotten
from fisherexp.methods.unlearning.satimp_weights import weighted_loss

# What has several tokens in a sequence.
TEXT = {"/data": "reports", "/model": "small_gpt", "/scenario": "random_forgetting"}


class Satimp(ERM):
    """saturation: β₁. importance: β₂. retain_weight: c. An epoch is one pass over the retained part.

    granularity: what gets one weight: a token, a sequence ('instance'), `group_size` tokens of a sequence that are
        next to each other in weight ('group'), or all of a batch. kept: which tokens of a sequence are ascended at all:
        all, or the share `share` of them with the largest or smallest losses, or a random one. Of samples with a class,
        where a sequence has one token, leave both as they are.
    """

    paper = "Yang et al., ICML 2025, arXiv 2505.11953"
    requires = ("class_labels or next_tokens",)
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "retain"
    weighs_samples = False
    counts_with = {
        "granularity": {**TEXT},
        "group_size": {"granularity": "group", **TEXT},
        "kept": {**TEXT},
        "share": {"kept": "largest", **TEXT},
    }

    def __init__(
        self,
        model: nn.Module,
        saturation: NonNegative,
        importance: NonNegative,
        retain_weight: NonNegative,
        epochs: Count,
        lr: Positive,
        weight_decay: NonNegative,
        granularity: Literal["token", "group", "batch", "instance"] = "token",
        group_size: Count = 8,
        kept: Literal["all", "largest", "smallest", "random"] = "all",
        share: Probability = 0.5,
    ) -> None:
        super().__init__(model, Recipe(epochs, "adamw", lr, 0.0, weight_decay, schedule="constant"))
        self.saturation, self.importance, self.retain_weight = saturation, importance, retain_weight
        self.weighting = {"granularity": granularity, "group_size": group_size, "kept": kept, "share": share}

    def batches(self, setting: Any) -> SideBySide:
        return retained_with_forgotten(setting)

    def loss(self, batch: Batch) -> Tensor:
        forget, logits = batch.tags["forgotten"], self.model(batch.inputs)
        retained = self.objective.loss(logits[~forget], batch.targets[~forget])
        logits, targets = logits[forget], batch.targets[forget]
        forgotten = weighted_loss(logits, targets, self.saturation, self.importance, **self.weighting)
        return self.retain_weight * retained - forgotten
