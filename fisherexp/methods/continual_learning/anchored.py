"""A quadratic penalty that ties a model to what it was, each parameter with a stiffness of its own.

    L(θ) = task loss + λ_e c Σ_k Σ_j Ω_{k,j} (θ_j - θ*_{k,j})²

for anchors k; c is ½ or 1, as the paper of a method has it. Ω says how much each parameter matters: a Fisher for EWC,
a path integral for SI, sensitivities for MAS, one for L2-SP. λ_e may fall within a task, by epochs.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import NonNegative
from fisherexp.data.batch import Batch
from fisherexp.methods.continual_learning.sequence import TaskTraining
from fisherexp.methods.recipe import Recipe

Tensors = Mapping[str, Tensor]


def quadratic(parameters: Tensors, omega: Tensors, anchor: Tensors) -> Tensor:
    """Σ_j Ω_j (θ_j - θ*_j)² over the parameters named in omega, a scalar. Its gradient is 2 Ω (θ - θ*)."""
    return torch.stack([(weight * (parameters[j] - anchor[j]).square()).sum() for j, weight in omega.items()]).sum()


def strength(schedule: str, lambda_: float, floor: float, epoch: int, epochs: int) -> float:
    """λ in `epoch` = 0, 1, … of `epochs`: lambda_ throughout ('constant'), or max(floor, lambda_ (1 - epoch / epochs))
    ('linear_floor', as in arXiv 2503.05750), but never more than lambda_: at zero strength no floor is left."""
    return lambda_ if schedule == "constant" else min(lambda_, max(floor, lambda_ * (1 - epoch / epochs)))


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters that are trained, by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def added(one: Tensors, other: Tensors) -> dict[str, Tensor]:
    """Sums by name."""
    return {name: one[name] + other[name] for name in one}


class AnchoredTraining(TaskTraining):
    """Tasks in turn with the penalty on top. At the end of a task a subclass calls `remember`, or puts
    {"omega": …, "anchor": …} into memory["anchors"] itself.

    lambda_: λ at the start of a task. schedule: 'constant' or 'linear_floor', down to `floor`.
    """

    factor: ClassVar[float] = 0.5  # c
    weighs_samples = True
    counts_with = {"floor": {"schedule": "linear_floor", "lambda_": 1.0}}

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        lambda_: NonNegative,
        schedule: Literal["constant", "linear_floor"] = "constant",
        floor: NonNegative = 0.0,
    ) -> None:
        super().__init__(model, training)
        self.lambda_, self.schedule, self.floor = lambda_, schedule, floor
        self.memory["anchors"] = []

    def remember(self, omega: Tensors) -> None:
        """Let the one anchor be the model as it is, with omega on top of the stiffness of former tasks."""
        for old in self.memory["anchors"]:
            omega = added(omega, old["omega"])
        self.memory["anchors"] = [{"omega": omega, "anchor": snapshot(self.model)}]

    @property
    def stiffness(self) -> float:
        """c λ in this epoch."""
        epochs = self.training_recipe.epochs
        return self.factor * strength(self.schedule, self.lambda_, self.floor, self.epoch_of_task, epochs)

    def penalty(self) -> Tensor:
        """Σ_k Σ_j Ω_{k,j} (θ_j - θ*_{k,j})², without λ and c."""
        parameters = dict(self.model.named_parameters())
        return torch.stack([quadratic(parameters, **anchor) for anchor in self.memory["anchors"]]).sum()

    def loss(self, batch: Batch) -> Tensor:
        loss = super().loss(batch)
        if self.memory["anchors"] and (stiffness := self.stiffness):
            loss = loss + stiffness * self.penalty()
        return loss

    def on_train_end(self) -> None:
        super().on_train_end()
        if self.memory["anchors"]:  # how far the last task moved what it should not have moved
            self.outcome["penalty"] = self.penalty().item()
