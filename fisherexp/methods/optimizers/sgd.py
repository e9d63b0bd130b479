"""Stochastic gradient descent with momentum, the optimizer to be compared with.

v ← μ v + g + w θ,   θ ← θ - η v
"""

from typing import Any

import torch
from torch import nn

from fisherexp.config.types import Probability
from fisherexp.methods.optimizers.passes import PassByPass


class SGD(PassByPass):
    """momentum: μ. Further options: see PassByPass."""

    paper = "Robbins, Monro, Annals of Mathematical Statistics 1951; Polyak 1964"
    search = {"lr": "tag(log, interval(0.01, 1))"}

    def __init__(self, model: nn.Module, momentum: Probability, **options: Any) -> None:
        super().__init__(model, **options)
        self.momentum = momentum

    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, self.lr, self.momentum, weight_decay=self.weight_decay)
