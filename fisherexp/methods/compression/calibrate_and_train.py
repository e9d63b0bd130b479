"""The loop of compression: look at the model, edit it, fine-tune what is left; step after step.

One step is one epoch of the fit: `looks` passes over the batches that are looked at, an edit at the end of each, then
`finetune.epochs` passes over the training data.
"""

import dataclasses
from typing import Any

from torch import nn

from fisherexp.config.types import Count
from fisherexp.data.batch import Batch
from fisherexp.data.composite import Chained
from fisherexp.methods.method import ModelMethod
from fisherexp.methods.recipe import Recipe
from fisherexp.scenarios.setting import Setting


class CalibrateAndTrain(ModelMethod):
    """A subclass says what it looks at (`to_look_at`, `look`) and how that changes the model (`edit`).

    finetune: the recipe; its epochs are those after each step (0: none), its schedule goes over all steps.
    steps, looks: how many of each, looks per step.
    """

    start = "source"
    steps_itself = True

    def __init__(self, model: nn.Module, finetune: Recipe, steps: Count = 1, looks: Count = 1) -> None:
        super().__init__(model)
        self.finetune, self.looks = finetune, looks
        self.epochs = steps
        self.look_length, self.train_length = 1, 0
        self.position = 0  # in its look, of the batch that is looked at

    def to_look_at(self, setting: Setting) -> tuple[list[Any], list[int]]:
        """Loaders of one look, and how many batches of each. By default one batch, for a loop needs one."""
        return [setting.loader("train", shuffle=True)], [1]

    def look(self, batch: Batch) -> None:
        """Take a batch of a look into account. The model is as the last edit or training step left it."""

    def edit(self, step: int, look: int) -> None:
        """Change the model at the end of look 0 … looks - 1 of a step, and forget what was looked at."""
        raise NotImplementedError

    def trained(self) -> None:
        """Called after each step of the optimizer."""

    def batches(self, setting: Setting) -> Chained:
        # Every rank looks at the same batches and makes the same edit.
        loaders, lengths = self.to_look_at(dataclasses.replace(setting, rank=0, world_size=1))
        self.look_length = sum(lengths)
        train, epochs = super().batches(setting), self.finetune.epochs
        self.train_length = len(train)
        loaders, lengths = self.looks * loaders, self.looks * lengths
        return Chained(*loaders, *epochs * [train], lengths=lengths + epochs * [len(train)])

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        look, self.position = divmod(batch_idx, self.look_length)
        if look >= self.looks:
            self.train_on(batch)
            return
        self.look(batch)
        if self.position == self.look_length - 1:
            self.edit(self.current_epoch, look)

    def train_on(self, batch: Batch) -> None:
        """A step of fine-tuning on the mean loss."""
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.objective.loss(self.model(batch.inputs), batch.targets))
        optimizer.step()
        self.lr_schedulers().step()
        self.trained()

    def configure_optimizers(self) -> dict[str, Any] | None:
        if not self.finetune.epochs:
            return None
        recipe = dataclasses.replace(self.finetune, epochs=self.epochs * self.finetune.epochs)
        return recipe.configure(nn.ParameterList(self.trainable()), self.train_length)

    def trainable(self) -> list[nn.Parameter]:
        """What fine-tuning changes."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]
