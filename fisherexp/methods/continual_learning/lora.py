"""LoRA: the first task trains all parameters, every further one low-rank updates of the linear layers only.

Paper: Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen, ICLR 2022, arXiv 2106.09685; see
fisherexp.adapters.lora. At the end of a task the update is added to the weights, and the next one begins with adapters
of its own. Biases, convolutions and normalization layers stay as the first task left them, but for the batch statistics
of BatchNorm. Without the dropout on inputs that the official code offers.
"""

import dataclasses
from functools import partial
from typing import Any

from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import LoRA as Update
from fisherexp.config.types import Count, Positive
from fisherexp.methods.continual_learning import rows
from fisherexp.methods.continual_learning.sequence import TaskTraining
from fisherexp.methods.recipe import Recipe
from fisherexp.scenarios.setting import Setting


def attach(model: nn.Module, rank: int, alpha: float, per_layer: int = 1) -> None:
    """Give every linear layer that is trained `per_layer` low-rank updates and leave nothing else to train.

    Weights are formed, not factored: penalties need W' - W in any case.
    """
    make = partial(Update, rank=rank, alpha=alpha)
    for wanted in [name for name, _ in rows.linear_layers(model)]:
        for _ in range(per_layer):
            adapters.inject(model, lambda name, layer, wanted=wanted: name == wanted, make, factored=False)


def updates(model: nn.Module) -> dict[str, list[Tensor]]:
    """W' - W of each adapter of each layer, by the layer's name; empty where nothing is attached."""
    layers = adapters.adapted_layers(model)
    return {name: [adapter.update() for adapter in layer.adapters] for name, layer in layers.items()}


class LoRA(TaskTraining):
    """rank: r. alpha: α; the update is α / r times the product. lr: of the adapters, in the schedule of `training`.

    Raises ValueError on several devices, whose gradients Lightning joins for the parameters of the beginning only.
    """

    name = "lora"
    paper = "Hu et al., ICLR 2022, arXiv 2106.09685"
    requires = ("floats",)  # an adapter on a head that is tied to an embedding would be no low-rank update
    per_layer = 1  # adapters

    def __init__(
        self, model: nn.Module, training: Recipe, rank: Count, alpha: Positive, lr: Positive, **options: Any
    ) -> None:
        super().__init__(model, training, **options)
        self.rank, self.alpha, self.lr = rank, alpha, lr
        self.trained = [name for name, p in model.named_parameters() if p.requires_grad]

    def setup(self, stage: str) -> None:
        if self.trainer.world_size > 1:
            raise ValueError(f"{type(self).__name__} changes what is trained on the way: set trainer.devices=1")
        super().setup(stage)

    def begin_task(self) -> None:
        attach(self.model, self.rank, self.alpha, self.per_layer)

    def finish_task(self, task: Setting) -> None:
        self._merge()

    def on_train_end(self) -> None:
        self._merge()
        super().on_train_end()

    def _merge(self) -> None:
        adapters.merge(self.model)
        for name in self.trained:
            self.model.get_parameter(name).requires_grad_()

    def configure_optimizers(self) -> dict[str, Any]:
        recipe = self.training_recipe
        recipe = dataclasses.replace(recipe, lr=self.lr) if adapters.adapted_layers(self.model) else recipe
        return recipe.configure(self.model, self.steps_per_epoch)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if any(".adapters." in name for name in checkpoint["state_dict"]):
            self.begin_task()
        super().on_load_checkpoint(checkpoint)
