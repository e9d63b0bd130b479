"""SCRUB: a student that contradicts its teacher on forgotten data and follows it on retained data.

Paper: Kurmanji, Triantafillou, Hayes, Triantafillou, NeurIPS 2023, arXiv 2302.09880. The teacher t is the source
model, the student p_θ begins there, and with d(x) = T² KL(t(x) || p_θ(x)), both softened by the temperature T,

    max epochs:  θ ← θ + η ∇ mean d(B_f)                            over D_f, in the first `max_epochs` epochs
    min epochs:  θ ← θ - η ∇ [γ mean CE(B_r) + α mean d(B_r)]       over D_r, in every epoch

The max epoch comes first. Later epochs pass over D_f without a step. Left out: rewinding to an earlier state whose
forget error is that of validation data (SCRUB+R), and the moving average of the weights.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.types import Count, NonNegative, Positive, Probability, Size
from fisherexp.methods.unlearning.batches import Combined, forgotten_then_retained, is_forgotten
from fisherexp.methods.unlearning.finetune import Finetune
from fisherexp.methods.unlearning.teacher import Taught, kl_to_teacher


def distance(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² KL(teacher || student) of a batch of logits (B, C), mean over the batch."""
    return temperature**2 * kl_to_teacher(student, teacher, temperature).mean()


class SCRUB(Taught, Finetune):
    """max_epochs: how many of the epochs begin with one of contradiction. gamma, alpha: weights of cross-entropy
    and distance on retained data."""

    paper = "Kurmanji et al., NeurIPS 2023, arXiv 2302.09880"
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "train"

    def __init__(
        self,
        model: nn.Module,
        max_epochs: Size,
        gamma: NonNegative,
        alpha: NonNegative,
        temperature: Positive,
        epochs: Count,
        lr: Positive,
        momentum: Probability,
        weight_decay: NonNegative,
        forget_batch_size: Count,
        retain_batch_size: Count,
    ) -> None:
        super().__init__(model, epochs, lr, momentum, weight_decay)
        self.max_epochs, self.gamma, self.alpha, self.temperature = max_epochs, gamma, alpha, temperature
        self.forget_batch_size, self.retain_batch_size = forget_batch_size, retain_batch_size
        self.hire()

    def batches(self, setting: Any) -> Combined:
        return forgotten_then_retained(setting, self.forget_batch_size, self.retain_batch_size)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        if self.current_epoch >= self.max_epochs and is_forgotten(batch[1]).all():
            return None
        return super().training_step(batch, batch_idx)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.teacher(images)
        logits = self.model(images)
        away = distance(logits, wanted, self.temperature)
        if is_forgotten(labels).all():  # InTurn never mixes the two
            return -away
        return self.gamma * F.cross_entropy(logits, labels) + self.alpha * away
