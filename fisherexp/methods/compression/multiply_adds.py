"""Multiply-adds of a network's weights: each that is not zero is used once for every place its layer computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.models.eval_mode import eval_mode

LAYERS = (nn.Linear, nn.Conv2d)


@torch.no_grad()
def multiply_adds(model: nn.Module, inputs: Tensor) -> dict[str, int]:
    """By name of a linear layer or convolution, for one sample: places times weights that are not zero.

    inputs: of one or more samples. Products of two activations, as in attention, are not counted.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LAYERS)}
    with _places(layers) as places, eval_mode(model):
        model.forward(inputs)
    return {name: places.get(name, 0) // len(inputs) * int(layers[name].weight.count_nonzero()) for name in layers}


@contextmanager
def _places(layers: dict[str, nn.Module]) -> Iterator[dict[str, int]]:
    """Output places of each layer in the passes made here, over all samples."""
    places: dict[str, int] = {}

    def count(name: str, layer: nn.Module, output: Tensor) -> None:
        places[name] = places.get(name, 0) + output.numel() // layer.weight.shape[0]

    def hook(name: str) -> Any:
        return lambda layer, _, output: count(name, layer, output)

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield places
    finally:
        for handle in handles:
            handle.remove()
