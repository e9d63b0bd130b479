"""Ends a training whose loss or weights are no numbers any more: a run that diverged has failed."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from fisherexp.models.shares import local


class Diverged(ArithmeticError):
    """What should be a number is infinite or NaN; the message says what and where."""


class Finite(Callback):
    """Looks at the loss of every step and, between epochs, at the weights. Nothing is synchronized within an epoch.

    A method's own check at the end of an epoch, which knows what to advise, comes first.
    """

    def __init__(self) -> None:
        self.losses: Tensor | None = None  # whether every loss so far was finite, on the device

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            found = loss.detach().isfinite().all()
            self.losses = found if self.losses is None else self.losses & found

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.check(trainer, module)

    def check(self, trainer: Trainer, module: LightningModule) -> None:
        """Raises Diverged, on all ranks, where one of them met a loss or has a weight that is not finite."""
        wrong = None if weights_are_finite(module) else "weights"
        if self.losses is not None and not self.losses:
            wrong = "the loss" if wrong is None else "the loss and weights"
        if trainer.strategy.reduce_boolean_decision(wrong is not None, all=False):
            name, epochs = type(module).__name__, trainer.current_epoch
            reason = f"{wrong or 'the loss'} not finite after epoch {epochs}"
            raise Diverged(f"{name} diverged: {reason}; a lower learning rate may help")

    def state_dict(self) -> dict[str, Any]:
        return {"losses": None if self.losses is None else bool(self.losses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses = None if state["losses"] is None else torch.tensor(state["losses"])


def weights_are_finite(module: nn.Module) -> bool:
    """Are all parameters finite, of which this process has a share, and no buffer NaN or +inf? A mask holds -inf. One
    synchronization."""
    wrong = [local(p.detach()).isfinite().logical_not().any() for p in module.parameters() if p.is_floating_point()]
    wrong += [(b.isnan() | b.isposinf()).any() for b in module.buffers() if b.is_floating_point()]
    return not wrong or not bool(torch.stack(wrong).any())


def check_figures(figures: Mapping[str, Any], where: str) -> None:
    """Raises Diverged for the first figure that is infinite or NaN."""
    for name, value in figures.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise Diverged(f"{where}: {name} is {value}; it has diverged")
