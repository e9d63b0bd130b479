"""What every objective answers."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor

from fisherexp.metrics.evaluation import Evaluation


class Objective(ABC):
    """Loss, likelihood and metrics that belong together. The problem owns it; methods, callbacks and audits ask it.

    likelihood: the name of the same loss in fisherexp.curvature.
    """

    likelihood: ClassVar[str]

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
        """Mean (or sum) over all that is predicted, a scalar."""

    @abstractmethod
    def sample_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample, (B,): of a sequence, the mean over its tokens."""

    @abstractmethod
    def metrics(self, names: tuple[str, ...], held_out: str | None = None) -> Evaluation:
        """How a model is evaluated on parts of these names; `held_out` is one put aside to fit something on."""
