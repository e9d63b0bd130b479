"""Relearn time: how many steps of training on the forgotten samples bring back what a model knew of them.

Knowledge that comes back at once was hidden, not forgotten. The retrained oracle's figure is the anchor.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.data.batch import Batch
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.models.eval_mode import eval_mode
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import generator

# The loss is looked at after every step, on no more forgotten samples than this.
PROBED = 1000
PROBED_AT_ONCE = 256


def probe(setting: Setting) -> Tensor:
    """Indices into the part 'forget' of the samples whose loss is looked at: at most PROBED, drawn from the seed."""
    order = torch.randperm(len(setting.parts["forget"]), generator=generator("relearn", setting.seed))
    return order[:PROBED].sort().values


class Relearn(ERM):
    """Training on the part 'forget' until the mean loss of its probed samples, in eval mode, is `target` or less.

    training: the optimizer is taken from it, at its peak learning rate throughout. cap: steps after which to give up.
    After fit, `steps` is the number of optimizer steps it took, None where the cap was reached first.
    """

    fits_on = "forget"
    weighs_samples = False

    def __init__(self, model: nn.Module, training: Recipe, target: float, cap: int) -> None:
        super().__init__(model, dataclasses.replace(training, epochs=cap, schedule="constant", warmup_epochs=0))
        self.target, self.cap = target, cap
        self.steps: int | None = None
        self.probed: list[Batch] = []

    def batches(self, setting: Setting) -> Any:
        """Raises ValueError for a single forgotten sample, which makes no batch."""
        if len(setting.parts["forget"]) < 2:
            raise ValueError("relearning needs two forgotten samples at least: set audit.relearn_cap=0")
        probed = setting.parts["forget"].subset(probe(setting))
        whole = {"rank": 0, "world_size": 1}  # every rank decides alike
        self.probed = list(setting.loader_of(probed, shuffle=False, batch_size=PROBED_AT_ONCE, **whole))
        return super().batches(setting)

    def on_train_batch_end(self, *batch: Any) -> None:
        if self.trainer.strategy.reduce_boolean_decision(self.probed_loss() <= self.target):
            self.steps = self.trainer.global_step
        self.trainer.should_stop = self.steps is not None or self.trainer.global_step >= self.cap

    def probed_loss(self) -> float:
        """Mean loss of the probed samples, in eval mode."""
        with torch.no_grad(), eval_mode(self.model):
            outputs = ((self.model(batch.inputs), batch.targets) for batch in self.probed)
            total = sum(self.objective.loss(*found, reduction="sum").item() for found in outputs)
        return total / sum(batch.size for batch in self.probed)
