"""FixMatch: what a model is sure of in a weak view is the label of the strong one.

    u = 1[max p ≥ τ] · CE(f(strong(x)), argmax p),   p = softmax f(weak(x))

Sohn et al., NeurIPS 2020, arXiv 2001.07685.
"""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from fisherexp.config.types import Probability
from fisherexp.methods.training.semi_supervised import SemiSupervised


class FixMatch(SemiSupervised):
    """threshold: τ; with 0 every sample counts. Further options: see SemiSupervised."""

    name = "fixmatch"
    paper = "Sohn et al., NeurIPS 2020, arXiv 2001.07685"
    counts_with = {"unlabelled_weight": {"threshold": 0.0}}

    def __init__(self, threshold: Probability = 0.95, **options: Any) -> None:
        super().__init__(**options)
        self.threshold = threshold

    def unlabelled_losses(self, probabilities: Tensor, strong: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        confidence, classes = probabilities.max(1)
        used = confidence >= self.threshold
        return used * F.cross_entropy(strong, classes, reduction="none"), used
