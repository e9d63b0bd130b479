"""Pruning a trained model step by step, with fine-tuning in between: what every pruning method shares.

Step e takes the model to `sparsities[e]`, in R sub-steps that keep a geometric series of weights,

    kept after sub-step j = d (1 - s_{e-1}) ((1 - s_e) / (1 - s_{e-1}))^{j/R},    j = 1 … R,

each after a new look at the model, and then fine-tunes. Zhu, Gupta 2017, arXiv 1710.01878 (gradual pruning);
Frantar, Kurtic, Alistarh 2021, arXiv 2107.03356 (recomputations). Only weights of linear and convolutional layers are
pruned, all of them compared together. A weight that was dropped stays zero.

One step is one epoch of the fit: the batches that are looked at, then `finetune.epochs` passes over the training data.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.types import Count, Probability
from fisherexp.curvature.lanczos import ravel, unravel
from fisherexp.data.chain import ChainedLoader
from fisherexp.methods.method import Method
from fisherexp.methods.recipe import Recipe
from fisherexp.scenarios.setting import Setting

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable weights of linear and convolutional layers, by parameter name; biases and norms stay."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LAYERS)}
    return {f"{name}.weight": layer.weight for name, layer in layers.items() if layer.weight.requires_grad}


def lowest(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` lowest scores; of equal ones the earlier are taken."""
    return torch.argsort(scores, stable=True)[:count]


class Pruning(Method):
    """A method says what it looks at and which weights that makes it drop.

    sparsities: share of weights that are zero after each step, rising. recomputations: R, looks within a step.
    finetune: the recipe after each step, its epochs per step (0: none), its schedule over all steps.

    The outcome says how many weights there are, how many are kept, in all and by layer, and the sparsity reached.
    """

    start = "source"

    def __init__(
        self, model: nn.Module, sparsities: list[Probability], finetune: Recipe, recomputations: Count = 1
    ) -> None:
        super().__init__(model)
        if not sparsities or any(b <= a for a, b in zip([0.0, *sparsities], [*sparsities, 2.0], strict=True)):
            raise ValueError(f"method.sparsities must rise from above 0, got {list(sparsities)}")
        self.sparsities, self.finetune, self.recomputations = list(sparsities), finetune, recomputations
        self.epochs = len(sparsities)
        self.automatic_optimization = False
        self.weights = prunable(model)
        if not self.weights:
            raise ValueError(f"{type(model).__name__} has no trainable linear or convolutional layer to prune")
        self.kept = torch.ones(sum(weight.numel() for weight in self.weights.values()), dtype=torch.bool)
        self.look_length = 1
        self.train_length = 0

    # --- what a method says --------------------------------------------------------------------------------

    def to_look_at(self, setting: Setting) -> tuple[list[Any], list[int]]:
        """Loaders of one look, and how many batches of each. By default one batch, for a loop needs one."""
        return [setting.loader("train", shuffle=True)], [1]

    def look(self, images: Tensor, labels: Tensor) -> None:
        """Take a batch of a look into account. The model is as the last sub-step left it."""

    def prune(self, weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The weights that are still there, (n,), without `count` of them: their new values (n,), zero where dropped,
        and the indices of the dropped. Forgets what was looked at."""
        raise NotImplementedError

    # --- the loop ------------------------------------------------------------------------------------------

    def batches(self, setting: Setting) -> ChainedLoader:
        # Every rank looks at the same batches and drops the same weights.
        alone = dataclasses.replace(setting, rank=0, world_size=1)
        loaders, lengths = self.to_look_at(alone)
        self.look_length = sum(lengths)
        train, epochs = super().batches(setting), self.finetune.epochs
        self.train_length = len(train)
        loaders, lengths = self.recomputations * loaders, self.recomputations * lengths
        return ChainedLoader(loaders + epochs * [train], lengths + epochs * [len(train)])

    def on_train_start(self) -> None:
        self.kept = self.kept.to(self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        look, position = divmod(batch_idx, self.look_length)
        if look >= self.recomputations:
            self.train_on(*batch)
            return
        self.look(*batch)
        if position == self.look_length - 1:
            self.prune_to(self.target(self.current_epoch, look + 1))

    def target(self, step: int, sub_step: int) -> int:
        """How many weights are kept after `sub_step` (1 … R) of `step` (0, 1 …)."""
        before, after = (1 - share for share in [0.0, *self.sparsities][step : step + 2])
        return round(len(self.kept) * before * (after / before) ** (sub_step / self.recomputations))

    @torch.no_grad()
    def prune_to(self, count: int) -> None:
        """Leave `count` weights."""
        flat, there = ravel(self.weights), self.kept.nonzero().flatten()
        values, dropped = self.prune(flat[there], len(there) - count)
        flat = flat.index_copy(0, there, values)
        self.kept[there[dropped]] = False
        self.write(flat)
        self.outcome = {
            "weights": len(self.kept),
            "kept": int(self.kept.sum()),
            "sparsity": 1 - self.kept.float().mean().item(),
            "kept_by_layer": {name: int(mask.sum()) for name, mask in unravel(self.kept, self.weights).items()},
        }

    def train_on(self, images: Tensor, labels: Tensor) -> None:
        """A step of fine-tuning. Dropped weights are set back to zero, whatever momentum made of them."""
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self.model(images), labels))
        optimizer.step()
        self.lr_schedulers().step()
        self.write(ravel(self.weights))

    @torch.no_grad()
    def write(self, flat: Tensor) -> None:
        """Give the prunable weights these values (d,), and zero where they are dropped."""
        for weight, values in zip(self.weights.values(), unravel(flat * self.kept, self.weights).values(), strict=True):
            weight.copy_(values)

    def configure_optimizers(self) -> dict[str, Any] | None:
        if not self.finetune.epochs:
            return None
        recipe = dataclasses.replace(self.finetune, epochs=self.epochs * self.finetune.epochs)
        return recipe.configure(self.model, self.train_length)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["kept"], checkpoint["pruning"] = self.kept, self.outcome

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.kept, self.outcome = checkpoint["kept"], checkpoint["pruning"]
