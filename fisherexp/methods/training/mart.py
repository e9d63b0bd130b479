"""MART: attacked images train, and the more so the less sure the model is of the clean ones.

    min_θ  (1/n) Σ_i [ -log p_y(x'_i) - log(1 - max_{k ≠ y} p_k(x'_i)) + λ (1 - p_y(x_i)) KL(p(x_i) ‖ p(x'_i)) ]

with x'_i = x_i + δ where the cross-entropy is large, ‖δ‖∞ ≤ ε, and p = softmax f. Wang et al., ICLR 2020.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fisherexp.config.types import NonNegative
from fisherexp.data.batch import Batch
from fisherexp.methods.mixup.mixing import intensities
from fisherexp.methods.training.adversarial_training import AdversarialTraining
from fisherexp.methods.unlearning.teacher import kl_to_teacher

LEAST = 1e-7  # of 1 - p, whose logarithm is taken


def boosted_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p_y - log(1 - max_{k ≠ y} p_k) of each sample (B,); logits (B, C), labels (B,)."""
    others = logits.softmax(1).scatter(1, labels[:, None], 0.0).amax(1)
    return F.cross_entropy(logits, labels, reduction="none") - (1 - others).clamp_min(LEAST).log()


class MART(AdversarialTraining):
    """lambda_: λ. Further options: see AdversarialTraining."""

    paper = "Wang et al., ICLR 2020"
    search = {"lambda_": "tag(log, interval(0.5, 20))"}
    weighs_samples = False

    def __init__(self, lambda_: NonNegative = 5.0, **options: object) -> None:
        super().__init__(**options)
        self.lambda_ = lambda_

    def loss(self, batch: Batch) -> Tensor:
        images, labels = intensities(batch.inputs), batch.targets
        clean, attacked = self.model(images), self.model(self.attacked(images, labels))
        unsure = 1 - clean.softmax(1).gather(1, labels[:, None])[:, 0]
        alike = unsure * kl_to_teacher(attacked, clean)
        return torch.mean(boosted_cross_entropy(attacked, labels) + self.lambda_ * alike)
