"""Low-rank adapters on the linear layers of a model, as parametrizations of their weights.

Paper: Hu et al., ICLR 2022, arXiv 2106.09685: W + (α / r) B A with B (d, r) zero and A (r, k) random at the start; W
and everything else stay as they are. Without the dropout on inputs that the official code offers.
"""

import math
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """W ↦ W + ΔW. weight: W (d, k), for its shape and place. scale: α / r."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(weight.new_empty(rank, columns))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.scale = scale

    def update(self) -> Tensor:
        """ΔW, (d, k)."""
        return self.scale * self.up @ self.down

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.update()


def linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Linear layers whose weight is trained or adapted, with their names."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and (parametrize.is_parametrized(layer) or layer.weight.requires_grad):
            yield name, layer


def attach(model: nn.Module, rank: int, alpha: float, adapters: int = 1) -> None:
    """Give every linear layer `adapters` of them and leave nothing else to train. Parameters that were not trained
    before are no business of `merge`, so remember which were."""
    layers = dict(linear_layers(model))
    model.requires_grad_(False)
    for layer in layers.values():
        for _ in range(adapters):
            parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank, alpha / rank))


def updates(model: nn.Module) -> dict[str, list[Tensor]]:
    """ΔW of each adapter of each layer, by the layer's name; empty where nothing is attached."""
    adapted = {name: layer for name, layer in model.named_modules() if parametrize.is_parametrized(layer, "weight")}
    return {name: [one.update() for one in layer.parametrizations["weight"]] for name, layer in adapted.items()}


def merge(model: nn.Module) -> None:
    """Put W + ΔW in the place of W and take the adapters away."""
    for layer in list(model.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
