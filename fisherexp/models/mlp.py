"""Multi-layer perceptron on flattened images and rows of numbers (Rumelhart, Hinton, Williams 1986)."""

import math
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from fisherexp.config.types import Count
from fisherexp.models.backbone import Backbone


class MLP(Backbone):
    """Linear (→ BatchNorm) → ReLU, once per hidden width; features are the last hidden layer.

    hidden: widths of the hidden layers; an empty list makes the whole classifier linear.
    batch_norm: normalize before each ReLU (the Linear then needs no bias).
    init: of weights and biases, the head's too: torch's own, or Xavier's uniform one with zero biases (Glorot,
        Bengio 2010).
    input_shape: (C, H, W) of images, (d,) of rows of numbers.
    """

    requires = ("floats",)

    def __init__(
        self,
        hidden: list[Count],
        batch_norm: bool = False,
        init: Literal["torch", "xavier"] = "torch",
        *,
        input_shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.init = init
        widths = [math.prod(input_shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(widths):
            layers.append(nn.Linear(before, after, bias=not batch_norm))
            self.initialize(layers[-1])
            if batch_norm:
                layers.append(nn.BatchNorm1d(after))
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)
        self.stage_ends = [f"layers.{i}" for i, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
        self.num_features = widths[-1]

    def initialize(self, layer: nn.Linear) -> None:
        """Give a linear layer the weights it begins with."""
        if self.init == "xavier":
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, d) of normalized images (B, C, H, W), or of rows (B, d)."""
        return self.layers(x)
