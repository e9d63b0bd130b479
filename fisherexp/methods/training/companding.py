"""Companded weights: an odd, bounded function that is steep at zero makes the weights of a layer from what is trained.

    w = Ψ(v),   Ψ(v) = a arctan(v / b)   or   a tanh(v / b)   or   a/2 (arctan(v / b) + tanh(v / b))

|w| stays below a π/2, a or a (π/2 + 1)/2, and Ψ'(0) = a/b. The gradient is ∂L/∂v = Ψ'(v) ∂L/∂w, so that small weights
move (a/b)² times as far in a step and large ones hardly at all.

After Cakaj, Mehnert, Yang, Weight Compander, arXiv 2306.16993. The function of that paper could not be read in any
source at hand: this family is ours, and has what its abstract says of it.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Psi = Literal["arctan", "tanh", "arctan_tanh", "identity"]
COMPONENTS = {"arctan": (torch.arctan,), "tanh": (torch.tanh,), "arctan_tanh": (torch.arctan, torch.tanh)}
HALVINGS = 80  # of an interval, down to the last bit of float64
INSIDE = 0.999  # of the bound, where a weight ends up that lies beyond


class Compander(nn.Module):
    """Ψ for torch.nn.utils.parametrize. amplitude: a, width: b, both positive. learned: whether each component's a and
    b are trained, as logarithms."""

    def __init__(self, psi: Psi, amplitude: float, width: float, learned: bool) -> None:
        super().__init__()
        self.components = COMPONENTS[psi]
        shares = torch.full((len(self.components),), amplitude / len(self.components))
        self.log_amplitude = nn.Parameter(shares.log(), requires_grad=learned)
        self.log_width = nn.Parameter(torch.full_like(shares, width).log(), requires_grad=learned)

    def forward(self, latent: Tensor) -> Tensor:
        """w of v, of any shape."""
        return self._sum(latent, self.log_amplitude.exp(), self.log_width.exp())

    def _sum(self, latent: Tensor, amplitudes: Tensor, widths: Tensor) -> Tensor:
        parts = zip(self.components, amplitudes, widths, strict=True)
        return sum(amplitude * function(latent / width) for function, amplitude, width in parts)

    @property
    def bound(self) -> float:
        """What |w| stays below."""
        limits = [function(torch.tensor(torch.inf)) for function in self.components]
        return float((torch.stack(limits) * self.log_amplitude.detach().exp()).sum())

    @torch.no_grad()
    def right_inverse(self, weight: Tensor) -> Tensor:
        """v of w, by halving an interval; of a w at or beyond the bound, that of 99.9 % of the bound."""
        amplitudes, widths = self.log_amplitude.double().exp(), self.log_width.double().exp()
        wanted = weight.double().clamp(-INSIDE * self.bound, INSIDE * self.bound)
        # Of the widest component, Ψ / bound exceeds 0.999 here: arctan is the slower one.
        high = torch.full_like(wanted, float(widths.max()) * 1e4)
        low = -high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = self._sum(middle, amplitudes, widths) < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return ((low + high) / 2).to(weight.dtype)


def weight_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Linear and convolutional layers whose weight is trained, by name."""
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds)}
    return {name: layer for name, layer in layers.items() if layer.weight.requires_grad}


def compand(
    model: nn.Module, psi: Psi, amplitude: float, width: float, learned: Literal["no", "network", "layer"]
) -> int:
    """Make the weights of all linear and convolutional layers companded ones, of the values they have; biases and
    other layers stay. learned: whether and over what a and b are shared and trained. Returns how many weights lay at or
    beyond the bound, and are now just inside it."""
    shared = Compander(psi, amplitude, width, learned != "no")
    beyond = 0
    for layer in weight_layers(model).values():
        beyond += int((layer.weight.detach().abs() >= INSIDE * shared.bound).sum())
        own = Compander(psi, amplitude, width, True) if learned == "layer" else shared
        parametrize.register_parametrization(layer, "weight", own)
    return beyond


def uncompand(model: nn.Module) -> None:
    """Ordinary weights again, of the values Ψ(v)."""
    for layer in model.modules():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def companders(model: nn.Module) -> list[Compander]:
    """Each once."""
    return [module for module in model.modules() if isinstance(module, Compander)]


def weight_statistics(model: nn.Module) -> dict[str, float]:
    """Of all weights of linear and convolutional layers: max_weight, the largest |w|; near_zero, the share of |w| below
    0.01, in %; kurtosis, that of a Gaussian being 3."""
    weights = torch.cat([layer.weight.detach().flatten() for layer in weight_layers(model).values()]).double()
    centred = weights - weights.mean()
    return {
        "max_weight": weights.abs().max().item(),
        "near_zero": 100 * (weights.abs() < 0.01).double().mean().item(),
        "kurtosis": (centred**4).mean().item() / centred.square().mean().item() ** 2,
    }
