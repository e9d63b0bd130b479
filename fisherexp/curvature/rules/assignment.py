"""A parameter written into activations by index: z[:, 0] = class_token, z[mask] = mask_token.

The parameter is expanded to the shape of what it replaces, so that `Expand` follows it like any other broadcast.
"""

import torch
from torch import Tensor

from .base import Unsupported


def write(target: Tensor, index, value) -> None:
    """`target[index] = value`. Raises Unsupported for values that are no tensors or have more axes than their place."""
    if not isinstance(value, Tensor):
        raise Unsupported
    with torch.no_grad(), torch._C.DisableTorchFunction():
        shape = target[index].shape
    if value.dim() > len(shape):
        raise Unsupported
    expanded = value.expand(shape)
    with torch._C.DisableTorchFunction():
        target[index] = expanded


DECOMPOSITIONS = {Tensor.__setitem__: write}
