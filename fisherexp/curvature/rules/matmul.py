"""Matrix product with a parameter on the right: y = x W, the transposed linear layer.

G_n = Σ_t x_nt g_ntᵀ; one position per sample factorizes as in the linear rule.
"""

import torch
from torch import Tensor

from .base import Call, Unsupported
from .linear import Linear


class Matmul(Linear):
    """`torch.matmul(input, weight)` with a two-dimensional weight."""

    def __init__(self, call: Call, input: Tensor, weight: Tensor):
        if weight.dim() != 2 or input.dim() < 2:
            raise Unsupported
        super().__init__(call, input, weight)

    def per_sample(self, slot, g, rows):
        return super().per_sample(slot, g, rows).mT

    def _outer(self, g, rows, weights):
        return super()._outer(g, rows, weights)[::-1]

    def add_squares(self, g, totals, last=True):
        super().add_squares(g, {"weight": totals["weight"].mT}, last)


def _addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """Product and bias apart, each with its rule: the `Conv1D` of transformers."""
    if beta != 1 or alpha != 1:
        raise Unsupported
    return torch.add(torch.matmul(mat1, mat2), input)


DECOMPOSITIONS = {torch.addmm: _addmm}
RULES = dict.fromkeys([torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm], Matmul)
