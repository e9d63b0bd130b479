"""Adam with decoupled weight decay (AdamW), the optimiser to be compared with; without weight decay it is Adam.

m ← β₁ m + (1 - β₁) g,   v ← β₂ v + (1 - β₂) g²,   θ ← θ - η (m̂ / (√v̂ + ε) + w θ)
"""

import torch
from torch import nn

from fisherexp.config.types import Count, NonNegative, Positive
from fisherexp.methods.optimisation.passes import PassByPass


class Adam(PassByPass):
    """Options: see PassByPass. β = (0.9, 0.999), ε = 1e-8."""

    paper = "Kingma, Ba, ICLR 2015, arXiv 1412.6980; Loshchilov, Hutter, ICLR 2019, arXiv 1711.05101"
    search = {"lr": "tag(log, interval(0.0003, 0.03))"}

    def __init__(
        self,
        model: nn.Module,
        epochs: Count = 6,
        lr: Positive = 1e-3,
        weight_decay: NonNegative = 0.0,
        cpu_seconds: Positive | None = None,
    ) -> None:
        super().__init__(model, epochs, lr, weight_decay, cpu_seconds)

    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, self.lr, weight_decay=self.weight_decay)
