"""What fine-tuning under masks has in common: the optimizer remembers nothing of entries outside them."""

from typing import Any

import torch

from fisherexp import adapters
from fisherexp.methods.finetuning.finetuning import AdapterTuning


class MaskTuning(AdapterTuning):
    """A subclass makes a sparse adapter. Weight decay acts on the trained entries of the weights and on no others."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer, *rest: Any) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, *rest)
        adapters.forget_outside(self.optimizers(use_pl_optimizer=False), self.model)
