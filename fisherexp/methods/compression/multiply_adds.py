"""Multiply-adds of a network's weights: each that is not zero is used once for every place its layer computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.curvature.inputs import batch_size
from fisherexp.data.batch import Inputs
from fisherexp.models.eval_mode import eval_mode
from fisherexp.quantization import is_matrix, matrix


@torch.no_grad()
def multiply_adds(model: nn.Module, inputs: Inputs) -> dict[str, int]:
    """By name of a linear layer (GPT-2's, too) or convolution, for one sample: places times weights that are not zero.

    inputs: of one or more samples; padding is computed as all else is. Products of two activations, as in attention,
    are not counted.
    """
    layers = {n: layer for n, layer in model.named_modules() if isinstance(layer, nn.Conv2d) or is_matrix(layer)}
    with _places(layers) as places, eval_mode(model):
        model.forward(inputs)
    size = batch_size(inputs)
    return {name: places.get(name, 0) // size * int(layers[name].weight.count_nonzero()) for name in layers}


@contextmanager
def _places(layers: dict[str, nn.Module]) -> Iterator[dict[str, int]]:
    """Output places of each layer in the passes made here, over all samples."""
    places: dict[str, int] = {}

    def count(name: str, layer: nn.Module, output: Tensor) -> None:
        places[name] = places.get(name, 0) + output.numel() // len(matrix(layer))

    def hook(name: str) -> Any:
        return lambda layer, _, output: count(name, layer, output)

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield places
    finally:
        for handle in handles:
            handle.remove()
