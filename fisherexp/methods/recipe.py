"""How a network is trained: optimizer, schedule, length. Shared by every method that trains."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from fisherexp.config.types import Count, NonNegative, Pattern, Positive, Probability, Size
from fisherexp.methods.parameter_groups import changed_by_name, in_groups, scaled_to_width


@dataclass(frozen=True)
class Recipe:
    """epochs: passes over the data; 0 leaves a pretrained model as it came. lr: peak learning rate. momentum: of SGD.
    weight_decay: on all parameters, or with decay_vectors=False on matrices and kernels only, not on biases and scales.
    schedule: 'constant', 'cosine' (to zero, per step) or 'multistep' (times `gamma` at each of `milestones`, epochs).
    warmup_epochs: linear rise from zero, before and on top of the schedule.
    weight_decay_rule: 'uniform', or 'width': lr and weight_decay are those of a network `width_ratio` times as narrow,
        and what parameter_groups.py makes of them for this one; of AdamW alone.
    groups: expression -> lr and weight_decay of the parameters whose name it is found in, as {"bias": {"lr": 0.1}};
        they come before the rule.

    Raises ValueError for the rule with another optimizer.
    """

    counts_with: ClassVar[dict[str, dict[str, Any]]] = {
        "optimizer": {"weight_decay": 0.1},  # without, Adam is AdamW
        "momentum": {"optimizer": "sgd"},
        "schedule": {"milestones": [1]},
        "milestones": {"schedule": "multistep", "milestones": [1]},
        "gamma": {"schedule": "multistep", "milestones": [1]},
        "weight_decay_rule": {"optimizer": "adamw", "weight_decay": 0.1},
        "width_ratio": {"optimizer": "adamw", "weight_decay_rule": "width"},
        "groups": {"groups": {"weight": {"lr": 0.001}}},
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
    weight_decay_rule: Literal["uniform", "width"] = "uniform"
    width_ratio: Positive = 1.0
    groups: dict[Pattern, dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        if self.weight_decay_rule == "width" and self.optimizer != "adamw":
            raise ValueError(f"weight_decay_rule=width is of AdamW, not optimizer={self.optimizer}: optimizer=adamw")

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
        return self.configure_groups(self.groups_of(model), steps_per_epoch)

    def groups_of(self, model: nn.Module) -> list[dict[str, Any]]:
        """Trainable parameters in torch's groups, with the learning rate and weight decay that each is to have.

        Raises ValueError for `groups` that fit no parameter.
        """
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        decays = {p: self.weight_decay if self.decay_vectors or p.dim() > 1 else 0.0 for p in named.values()}
        settings = {p: {"lr": self.lr, "weight_decay": decay} for p, decay in decays.items()}
        if self.weight_decay_rule == "width":
            settings = scaled_to_width(model, self.lr, self.weight_decay, self.width_ratio)
        return in_groups(changed_by_name(named, settings, self.groups or {}))

    def configure_groups(self, parameters: list[nn.Parameter] | list[dict[str, Any]], steps_per_epoch: int) -> dict:
        """The same for given parameters or torch's groups of them; the schedule multiplies each group's own lr."""
        options = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(parameters, momentum=self.momentum, **options)
        else:
            optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.optimizer](parameters, **options)
        return self.scheduled(optimizer, steps_per_epoch)

    def scheduled(self, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> dict:
        """An optimizer with the schedule, which multiplies each group's own lr, for Lightning."""
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.factor(step, steps_per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
