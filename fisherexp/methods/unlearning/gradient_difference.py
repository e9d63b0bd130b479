"""Gradient difference: ascend the loss of forgotten samples, descend that of retained ones.

    L(θ) = -γ CE(B_f) + α CE(B_r),   means over all tokens of a batch

Liu, Liu, Stone, CoLLAs 2022, arXiv 2203.12817; form and defaults of open-unlearning (arXiv 2506.12618). NegGrad+ is the
same objective up to a factor, with other settings: α = 0.5 there is γ = α here, by SGD, and an epoch is a pass over the
retained part.
"""

from torch import Tensor

from fisherexp.data.batch import Batch
from fisherexp.methods.unlearning.forget_retain import ForgetRetain


class GradientDifference(ForgetRetain):
    """forget_weight: γ. retain_weight: α. Others as for ForgetRetain."""

    paper = "Liu et al., CoLLAs 2022, arXiv 2203.12817"

    def forgotten(self, logits: Tensor, batch: Batch) -> Tensor:
        return -self.objective.loss(logits, batch.targets)
