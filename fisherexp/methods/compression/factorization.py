"""Layers of a model as W = rest + L R: which they are, at which rank, and with which parts."""

import re
from functools import partial

import torch
from torch import Tensor, nn

from fisherexp.adapters import AdaptedLayer, LoRA, inject

HEAD = "head"
Parts = tuple[Tensor | float, Tensor, Tensor]  # rest (n, m), L (n, r), R (r, m)


def factorize(model: nn.Module, rank: int | None, ratio: float) -> dict[str, AdaptedLayer]:
    """Give every linear layer and plain convolution of `model` but its head a low-rank adapter; returned by name.

    L and R begin as zero, and everything that was trained still is. rank: of all, or fewer where a weight (n, m) has
    fewer rows or columns; None for that at which L and R hold `ratio` times the weights, ratio · n m / (n + m), at
    least 1. Frozen layers are left out. Raises ValueError if there is nothing to take.
    """
    sizes = {name: layer.weight.flatten(1).shape for name, layer in factorizable(model).items()}
    if not sizes:
        raise ValueError(f"{type(model).__name__} has no linear or convolutional layer besides its head to factorize")
    ranks = {name: min(n, m, rank or max(1, int(ratio * n * m / (n + m)))) for name, (n, m) in sizes.items()}
    options = {f"^{re.escape(name)}$": {"rank": r} for name, r in ranks.items()}
    make = partial(LoRA, init="zeros")
    return inject(model, lambda name, layer: name in sizes, make, options=options, trained="")


def factorizable(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that `factorize` takes, by name."""
    return {name: layer for name, layer in model.named_modules() if is_factorizable(layer) and name != HEAD}


def is_factorizable(layer: nn.Module) -> bool:
    """Is this a layer whose weight is trained, and a matrix that is applied as one?"""
    plain = isinstance(layer, nn.Linear) or (
        isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
    )
    return plain and layer.weight.requires_grad


@torch.no_grad()
def decompose(layer: AdaptedLayer, rest: Tensor | float, left: Tensor, right: Tensor) -> None:
    """Set the layer's own weight and the factors, and train the weight no more."""
    (adapter,) = layer.adapters
    layer.matrix.copy_(torch.as_tensor(rest))
    adapter.up.copy_(left)
    adapter.down.copy_(right)
    layer.frozen_weight.requires_grad_(False)
