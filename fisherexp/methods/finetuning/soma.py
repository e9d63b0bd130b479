"""SoMA: PiSSA with the smallest singular components, so that the strong, general directions stay as they are.

    W' = (W - B_0 A_0) + B A,   B, A = B_0, A_0 = U √S, √S Vᵀ of the r smallest components at the start

Paper: Yun, Chae, Lee, Ro, CVPR 2025, arXiv 2412.04077; see fisherexp/adapters/soma.py. Biases are trained too, early
blocks are frozen as a whole (`frozen`, here none by default), and the weight decay falls by a half cosine; AdamW
multiplies it by the learning rate, which falls as well. Each group's own decay falls: one without has none, where the
authors' code has that rise to the final one. Published runs average weights over the last steps; here the last ones
count.
"""

import math
import re
from typing import Any

from torch import nn

from fisherexp import adapters
from fisherexp.config.types import NonNegative, Pattern
from fisherexp.data.batch import Batch
from fisherexp.methods.finetuning.lora import LoRA


class SoMA(LoRA):
    """final_decay: the weight decay at the end; that of `finetune` is the first, and groups of parameters with another
    keep their ratio to it; zero stays zero. Where the first is zero, all groups keep theirs.
    frozen: an expression for layers of which nothing is trained, found in the name of a layer or a parameter. It wins
        over targets and trained. Others as for LoRA.

    Raises ValueError where `frozen` is found in no name.
    """

    name = "soma"
    paper = "Yun et al., CVPR 2025, arXiv 2412.04077"
    factors = adapters.SoMA
    counts_with = {"frozen": {"exclude": None, "frozen": "^head"}}

    def __init__(
        self, model: nn.Module, final_decay: NonNegative, frozen: Pattern | None = None, **options: Any
    ) -> None:
        super().__init__(model, **options)
        self.final_decay, self.frozen = final_decay, frozen
        self.shares: list[float] = []  # of the optimizer's groups: their own first decay, as a multiple of that of all

    def freeze(self) -> None:
        stay = {name: p for name, p in self.model.named_parameters() if self._is_frozen(name)}
        if self.frozen and not stay:
            raise ValueError(f"frozen: '{self.frozen}' is found in no name of a layer or parameter")
        layers = [rf"^{re.escape(name.removesuffix('.weight'))}$" for name in stay if name.endswith(".weight")]
        self.exclude = "|".join([*([self.exclude] if self.exclude else []), *layers]) or None
        super().freeze()
        for parameter in stay.values():
            parameter.requires_grad_(False)

    def _is_frozen(self, parameter: str) -> bool:
        found = (parameter.rpartition(".")[0], parameter)
        return self.frozen is not None and any(re.search(self.frozen, name) for name in found)

    def weight_decay(self, step: int, total: int) -> float:
        """That of step 0 … total, from the first to the final one."""
        first = self.training_recipe.weight_decay
        return self.final_decay + (first - self.final_decay) * 0.5 * (1 + math.cos(math.pi * step / total))

    def configure_optimizers(self) -> dict[str, Any]:
        configured = super().configure_optimizers()
        first = self.training_recipe.weight_decay
        groups = configured["optimizer"].param_groups
        self.shares = [group["weight_decay"] / first for group in groups] if first else []
        return configured

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        decay = self.weight_decay(self.trainer.global_step, self.epochs * self.steps_per_epoch)
        if self.shares:
            for group, share in zip(self.optimizers(use_pl_optimizer=False).param_groups, self.shares, strict=True):
                group["weight_decay"] = share * decay
