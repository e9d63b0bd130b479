"""How a network is trained: optimizer, schedule, length. Shared by every method that trains."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from fisherexp.config.types import Count, NonNegative, Positive, Probability, Size


@dataclass(frozen=True)
class Recipe:
    """epochs: passes over the data; 0 leaves a pretrained model as it came. lr: peak learning rate. momentum: of SGD.
    weight_decay: on all parameters, or with decay_vectors=False on matrices and kernels only, not on biases and scales.
    schedule: 'constant', 'cosine' (to zero, per step) or 'multistep' (times `gamma` at each of `milestones`, epochs).
    warmup_epochs: linear rise from zero, before and on top of the schedule.
    """

    counts_with: ClassVar[dict[str, dict[str, Any]]] = {
        "optimizer": {"weight_decay": 0.1},  # without, Adam is AdamW
        "momentum": {"optimizer": "sgd"},
        "schedule": {"milestones": [1]},
        "milestones": {"schedule": "multistep", "milestones": [1]},
        "gamma": {"schedule": "multistep", "milestones": [1]},
    }

    epochs: Size = 50
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Positive = 0.05
    momentum: Probability = 0.9
    weight_decay: NonNegative = 5e-4
    schedule: Literal["constant", "cosine", "multistep"] = "cosine"
    milestones: list[Count] = field(default_factory=list)
    gamma: Positive = 0.2
    warmup_epochs: Size = 0
    decay_vectors: bool = True

    def factor(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate at `step`, as a multiple of lr."""
        warmup = self.warmup_epochs * steps_per_epoch
        if step < warmup:
            return (step + 1) / warmup
        if self.schedule == "multistep":
            return self.gamma ** sum(step >= m * steps_per_epoch for m in self.milestones)
        if self.schedule == "cosine":
            length = max(1, self.epochs * steps_per_epoch - warmup)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / length)))
        return 1.0

    def configure(self, model: nn.Module, steps_per_epoch: int) -> dict:
        """Optimizer and per-step schedule of the trainable parameters, for Lightning's configure_optimizers."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        if self.decay_vectors:
            return self.configure_groups(parameters, steps_per_epoch)
        vectors = {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}
        return self.configure_groups([{"params": [p for p in parameters if p.dim() > 1]}, vectors], steps_per_epoch)

    def configure_groups(self, parameters: list[nn.Parameter] | list[dict[str, Any]], steps_per_epoch: int) -> dict:
        """The same for given parameters or torch's groups of them; the schedule multiplies each group's own lr."""
        options = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(parameters, momentum=self.momentum, **options)
        else:
            optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.optimizer](parameters, **options)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.factor(step, steps_per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
