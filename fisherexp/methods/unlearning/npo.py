"""Negative preference optimization: the forgotten sequences are answers that lose to the source's own likelihood.

Paper: Zhang, Lin, Bai, Mei, COLM 2024, arXiv 2404.05868. With L_i = -log p_θ(y_i | x_i), the sum over the tokens of
sequence i, and L_i^0 that of the source,

    forgotten = -(2/β) mean_i log σ(β (L_i - L_i^0)),   L(θ) = γ forgotten + α CE(B_r)

The weight of -∂L_i is 2 σ(-β (L_i - L_i^0)): 1 at the source, where it is gradient ascent on L_i, and less the more has
been forgotten. β → 0 is gradient ascent throughout.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.types import Positive
from fisherexp.data.batch import Batch
from fisherexp.methods.unlearning.forget_retain import ForgetRetain
from fisherexp.methods.unlearning.sequence_losses import sequence_losses
from fisherexp.methods.unlearning.teacher import Taught


def negative_preference(losses: Tensor, reference: Tensor, beta: float) -> Tensor:
    """-(2/β) mean log σ(β (losses - reference)) of the losses (B,) of sequences, a scalar."""
    return -2 / beta * F.logsigmoid(beta * (losses - reference)).mean()


class NPO(ForgetRetain, Taught):
    """beta: β. Others as for ForgetRetain."""

    paper = "Zhang et al., COLM 2024, arXiv 2404.05868"

    def __init__(self, model: nn.Module, beta: Positive, **options: Any) -> None:
        super().__init__(model, **options)
        self.beta = beta
        self.hire()

    def forgotten(self, logits: Tensor, batch: Batch) -> Tensor:
        with torch.no_grad():
            reference = sequence_losses(self.teacher(batch.inputs), batch.targets)
        return negative_preference(sequence_losses(logits, batch.targets), reference, self.beta)
