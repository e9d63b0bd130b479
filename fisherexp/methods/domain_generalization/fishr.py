"""Fishr: equal variances of per-sample head gradients in all domains.

Paper: Rame, Dancette, Cord, ICML 2022, arXiv 2109.02934. With v_e the variance over samples of the head's gradient,

    P = Σ_e ||v_e - mean v||²

Colored MNIST sums over parameters and domains; DomainBed takes the mean over both (penalty.over) and smooths v_e by a
moving average m ← ema m + (1 - ema) v, of which it uses m / (1 - ema): the newest v enters with full weight.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Probability
from fisherexp.curvature.head_gradients import head_gradient_variance
from fisherexp.methods.domain_generalization.base import DomainMethod
from fisherexp.methods.domain_generalization.domain import Domain, Over, spread
from fisherexp.methods.domain_generalization.penalty import Penalty
from fisherexp.methods.recipe import Recipe


def head_variances(domains: Sequence[Domain]) -> Tensor:
    """The biased variance over samples of each domain's head gradient, (E, C, d + 1)."""
    return torch.stack([head_gradient_variance(*domain, head=domain.head) for domain in domains])


def fishr_penalty(variances: Tensor, over: Over = "sum") -> Tensor:
    """Squared distances of variances (E, C, d + 1) from their mean: summed, or averaged over domains and entries."""
    distance = spread(variances, over)
    return distance if over == "sum" else distance / variances[0].numel()


class Fishr(DomainMethod):
    """ema: decay of the moving average of variances; 0 for none."""

    by_bias = True
    paper = "Rame et al., ICML 2022, arXiv 2109.02934"
    without_effect = {
        "penalty.detach_center": "its gradient is the same",
        "penalty.terms": "there is one term",
    }
    # Accuracies (%), mean and standard deviation over 10 restarts: README of the official code.
    published = {
        "colored_mnist": {"train_accuracy": (71.0, 0.9), "target_accuracy": (69.5, 1.0), "gray_accuracy": (70.2, 1.1)}
    }

    def __init__(self, model: nn.Module, ema: Probability, training: Recipe, penalty: Penalty) -> None:
        super().__init__(model, training, penalty)
        if ema == 1:
            raise ValueError("method.ema=1 would never take in a new variance; nearest valid: method.ema=0.95")
        self.ema = ema
        self.smoothed: Tensor | None = None

    def misalignment(self, domains: Sequence[Domain]) -> Tensor:
        variances = head_variances(domains)
        if self.ema:
            before = torch.zeros_like(variances) if self.smoothed is None else self.smoothed.to(variances)
            variances = variances + self.ema / (1 - self.ema) * before
            self.smoothed = (1 - self.ema) * variances.detach()
        return fishr_penalty(variances, self.penalty.over)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["smoothed"] = self.smoothed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.smoothed = checkpoint["smoothed"]
