"""Invariant risk minimization: a head that no domain would rescale.

Paper: Arjovsky, Bottou, Gulrajani, Lopez-Paz 2019, arXiv 1907.02893 (IRMv1). With s a factor on the logits z,

    P = mean_e ( d L_e(s z) / d s  at s = 1 )²,      d L_e / d s = E_e [ (p - y) · z ]

The derivative is the projection of the head's gradient on the head itself. It is taken in closed form here.
DomainBed multiplies the derivatives of two halves of the batch, which is unbiased: half_batches.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fisherexp.curvature.head_gradients import head_residuals
from fisherexp.methods.domain_generalization.base import DomainMethod
from fisherexp.methods.domain_generalization.domain import Domain
from fisherexp.methods.domain_generalization.penalty import Penalty
from fisherexp.methods.recipe import Recipe


def irm_penalty(domains: Sequence[Domain], half_batches: bool = False) -> Tensor:
    """Mean over domains of the squared derivative of the loss by a factor on the logits, a scalar.

    Raises:
        ValueError: half_batches with a domain of one sample.
    """
    squares = []
    for domain in domains:
        slopes = (head_residuals(domain.logits, domain.labels, domain.head) * domain.logits).sum(dim=1)
        if not half_batches:
            squares.append(slopes.mean().square())
        elif len(slopes) > 1:
            squares.append(slopes[::2].mean() * slopes[1::2].mean())
        else:
            raise ValueError("method.half_batches needs at least two samples of every domain in a batch")
    return torch.stack(squares).mean()


class IRM(DomainMethod):
    """half_batches: the unbiased product of two halves, which may be negative, instead of a square."""

    paper = "Arjovsky et al. 2019, arXiv 1907.02893"
    without_effect = {
        "penalty.over": "a mean over domains, as published",
        "penalty.detach_center": "no domain is compared with a mean",
        "penalty.terms": "there is one term",
    }
    # Accuracies (%), mean and standard deviation over 10 restarts: README of the official code of arXiv 2109.02934.
    published = {
        "colored_mnist": {"train_accuracy": (71.0, 0.5), "target_accuracy": (65.6, 1.8), "gray_accuracy": (66.1, 0.2)}
    }

    def __init__(self, model: nn.Module, half_batches: bool, training: Recipe, penalty: Penalty) -> None:
        super().__init__(model, training, penalty)
        self.half_batches = half_batches

    def misalignment(self, domains: Sequence[Domain]) -> Tensor:
        return irm_penalty(domains, self.half_batches)
