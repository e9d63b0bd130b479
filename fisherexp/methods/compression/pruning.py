"""Pruning a trained model step by step, with fine-tuning in between: what every pruning method shares.

Step e takes the model to `sparsities[e]`, in R sub-steps that keep a geometric series of weights,

    kept after sub-step j = d (1 - s_{e-1}) ((1 - s_e) / (1 - s_{e-1}))^{j/R},    j = 1 … R,

each after a new look at the model, and then fine-tunes. Zhu, Gupta 2017, arXiv 1710.01878 (gradual pruning);
Frantar, Kurtic, Alistarh 2021, arXiv 2107.03356 (recomputations). Only weights of linear and convolutional layers are
pruned, all of them compared together. A weight that was dropped stays zero.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import AtLeastOne, Count, Probability
from fisherexp.curvature.vectors import ravel, unravel
from fisherexp.methods.compression.calibrate_and_train import CalibrateAndTrain
from fisherexp.methods.recipe import Recipe
from fisherexp.quantization import has_kernel


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable weights of linear (GPT-2's, too) and convolutional layers, by parameter name, what several layers share
    once; biases and norms stay."""
    found: dict[str, nn.Parameter] = {}
    for name, layer in model.named_modules():
        weight = layer.weight if has_kernel(layer) else None
        if weight is not None and weight.requires_grad and not any(weight is other for other in found.values()):
            found[f"{name}.weight"] = weight
    return found


def lowest(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` lowest scores; of equal ones the earlier are taken."""
    return torch.argsort(scores, stable=True)[:count]


class Pruning(CalibrateAndTrain):
    """A method says what it looks at and which weights that makes it drop (`prune`).

    sparsities: share of weights that are zero after each step, rising. recomputations: R, looks within a step.
    finetune: the recipe after each step, its epochs per step (0: none), its schedule over all steps.

    The outcome says how many weights there are, how many are kept, in all and by layer, and the sparsity reached.
    """

    start = "source"

    def __init__(
        self, model: nn.Module, sparsities: AtLeastOne[Probability], finetune: Recipe, recomputations: Count = 1
    ) -> None:
        super().__init__(model, finetune, steps=len(sparsities), looks=recomputations)
        if not sparsities or any(b <= a for a, b in zip([0.0, *sparsities], [*sparsities, 2.0], strict=True)):
            raise ValueError(f"method.sparsities must rise from above 0, got {list(sparsities)}")
        self.sparsities, self.recomputations = list(sparsities), recomputations
        self.weights = prunable(model)
        if not self.weights:
            raise ValueError(f"{type(model).__name__} has no trainable linear or convolutional layer to prune")
        self.kept = torch.ones(sum(weight.numel() for weight in self.weights.values()), dtype=torch.bool)

    def prune(self, weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The weights that are still there, (n,), without `count` of them: their new values (n,), zero where dropped,
        and the indices of the dropped. Forgets what was looked at."""
        raise NotImplementedError

    def on_train_start(self) -> None:
        self.kept = self.kept.to(self.device)

    def edit(self, step: int, look: int) -> None:
        self.prune_to(self.target(step, look + 1))

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

    def trained(self) -> None:
        # Momentum and decay move what has no gradient, too.
        self.write(ravel(self.weights))

    @torch.no_grad()
    def write(self, flat: Tensor) -> None:
        """Give the prunable weights these values (d,), and zero where they are dropped."""
        for weight, values in zip(self.weights.values(), unravel(flat * self.kept, self.weights).values(), strict=True):
            weight.copy_(values)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["kept"], checkpoint["pruning"] = self.kept, self.outcome

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.kept, self.outcome = checkpoint["kept"], checkpoint["pruning"]
