"""Layers that are a matrix: which they are, the matrix W (n outputs, m inputs), and the rows that it is applied to."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def is_matrix(layer: nn.Module) -> bool:
    """Is this a linear layer, one of GPT-2's (Conv1D of transformers), or a convolution without groups that pads with
    zeros?"""
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros"
    return isinstance(layer, nn.Linear) or _is_transposed(layer)


def has_kernel(layer: nn.Module) -> bool:
    """Is this a linear layer, one of GPT-2's, or a convolution of any kind?"""
    return isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)) or _is_transposed(layer)


def matrix(layer: nn.Module) -> Tensor:
    """W (n, m) of the layer's weight; of a convolution m = channels · kernel height · kernel width."""
    return as_matrix(layer, layer.weight)


def as_matrix(layer: nn.Module, values: Tensor) -> Tensor:
    """Values of a layer's weights, in the weight's shape, as W (n, m) has them."""
    return values.T if _is_transposed(layer) else values.flatten(1)


@torch.no_grad()
def set_matrix(layer: nn.Module, weight: Tensor) -> None:
    """Give the layer another W (n, m)."""
    layer.weight.copy_(weight.T if _is_transposed(layer) else weight.view_as(layer.weight))


def input_rows(layer: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The vectors (N, m) among a layer's inputs that W is applied to.

    mask: of tokens (B, T), those that count; heeded by inputs (B, T, m), and by (B · T, m), which OPT makes of them.
    """
    if isinstance(layer, nn.Conv2d):
        padded = F.pad(x, layer._reversed_padding_repeated_twice)  # which knows "same", more at one end, from numbers
        patches = F.unfold(padded, layer.kernel_size, layer.dilation, 0, layer.stride)
        return patches.transpose(1, 2).flatten(0, 1)
    rows = x.flatten(0, -2)
    if mask is not None and x.shape[:-1] in (mask.shape, mask.flatten().shape):
        return rows[mask.flatten().bool()]
    return rows


def _is_transposed(layer: nn.Module) -> bool:
    return type(layer).__name__ == "Conv1D" and layer.weight.ndim == 2
