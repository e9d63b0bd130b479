"""One step per batch of a stream: which optimizer takes it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from fisherexp.config.types import Positive, Probability


@dataclass(frozen=True)
class UpdateRule:
    """optimizer: without weight decay. lr: constant. momentum: of SGD, or the first of Adam's two."""

    optimizer: Literal["sgd", "adam"] = "adam"
    lr: Positive = 1e-3
    momentum: Probability = 0.9

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """A fresh optimizer."""
        parameters = list(parameters)
        if self.optimizer == "sgd":
            return torch.optim.SGD(parameters, self.lr, self.momentum)
        return torch.optim.Adam(parameters, self.lr, (self.momentum, 0.999))
