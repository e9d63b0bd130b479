"""Gradient ascent on forgotten samples that stays close to the source's predictions on retained ones.

    L(θ) = -γ CE(B_f) + α (1/N) Σ_n KL(p_θ0(· | x_n) ‖ p_θ(· | x_n))

Maini, Feng, Schwarzschild, Lipton, Kolter, COLM 2024, arXiv 2401.06121 ("KL minimization"). n are the positions of the
retained sequences: all of them, prompts and padding too, as in open-unlearning (arXiv 2506.12618), or those alone at
which a token is predicted. θ_0: the source.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.data.batch import Batch
from fisherexp.methods.unlearning.gradient_difference import GradientDifference
from fisherexp.methods.unlearning.sequence_losses import counted
from fisherexp.methods.unlearning.teacher import Taught
from fisherexp.objectives.token_prediction import wide


def mean_kl(logits: Tensor, reference: Tensor) -> Tensor:
    """(1/N) Σ KL(softmax(reference) ‖ softmax(logits)) over the N positions of logits (…, V), a scalar."""
    given, wanted = (F.log_softmax(wide(each).flatten(0, -2), dim=-1) for each in (logits, reference))
    return F.kl_div(given, wanted, log_target=True, reduction="batchmean")


class KLUnlearning(GradientDifference, Taught):
    """positions: of the retained sequences that are held, 'all' or 'predicted'. Others as for ForgetRetain."""

    name = "kl_unlearning"
    paper = "Maini et al., COLM 2024, arXiv 2401.06121"
    counts_with = {"positions": {"/data": "reports", "/model": "small_gpt", "/scenario": "random_forgetting"}}

    def __init__(self, model: nn.Module, positions: Literal["all", "predicted"], **options: Any) -> None:
        super().__init__(model, **options)
        self.positions = positions
        self.hire()

    def retained(self, logits: Tensor, batch: Batch) -> Tensor:
        with torch.no_grad():
            reference = self.teacher(batch.inputs)
        if self.positions == "predicted":
            logits, reference = (counted(each, batch.targets)[0] for each in (logits, reference))
        return mean_kl(logits, reference)
