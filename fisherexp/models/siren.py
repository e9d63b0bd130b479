"""SIREN: a network of sines from coordinates to the values of a signal (Sitzmann et al., NeurIPS 2020, 2006.09661)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Siren(nn.Module):
    """y = W_L h_{L-1} + b_L,   h_l = sin(ω_l (W_l h_{l-1} + b_l)).

    hidden: widths. omega: ω of the layers but the first, first_omega: of the first. First weights are uniform in
    ±1/d, the others in ±√(6/d)/ω, d inputs; biases as torch's linear layers begin.
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: Sequence[int], first_omega: float = 30.0, omega: float = 30.0
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*sizes) for sizes in pairwise([inputs, *hidden, outputs]))
        self.omegas = [first_omega, *[omega] * (len(hidden) - 1)]
        for number, layer in enumerate(self.layers):
            size = layer.in_features
            limit = 1 / size if number == 0 else (6 / size) ** 0.5 / omega
            nn.init.uniform_(layer.weight, -limit, limit)

    def forward(self, coordinates: Tensor) -> Tensor:
        """Values (n, outputs) at coordinates (n, inputs)."""
        for layer, omega in zip(self.layers, self.omegas, strict=False):
            coordinates = torch.sin(omega * layer(coordinates))
        return self.layers[-1](coordinates)
