"""What every objective answers."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fisherexp.metrics.evaluation import Evaluation


class Objective(ABC):
    """Loss, likelihood and metrics that belong together. The problem owns it; methods, callbacks and audits ask it.

    likelihood: the name of the same loss in fisherexp.curvature.
    """

    likelihood: ClassVar[str]

    @abstractmethod
    def loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        reduction: Literal["mean", "sum"] = "mean",
        weights: Tensor | None = None,
    ) -> Tensor:
        """Mean (or sum) over all that is predicted, a scalar. weights: of the samples in it, (B,), not negative."""

    @abstractmethod
    def sample_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample, (B,): of a sequence, the mean over its tokens."""

    @abstractmethod
    def metrics(self, names: tuple[str, ...], held_out: str | None = None) -> Evaluation:
        """How a model is evaluated on parts of these names; `held_out` is one put aside to fit something on."""


def reduced(losses: Tensor, weights: Tensor, reduction: Literal["mean", "sum"]) -> Tensor:
    """Σ w ℓ / Σ w of losses and weights of one shape, or Σ w ℓ: a sample of weight 2 counts twice, one of 0 not at all.

    A batch without any weight has the loss 0.
    """
    weights = weights.to(losses.dtype)
    total = (weights * losses).sum()
    return total if reduction == "sum" else total / weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)
