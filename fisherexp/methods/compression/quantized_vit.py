"""Linear layers and attention of a ViT that compute with quantized weights and inputs (OFQ, arXiv 2302.02210).

A layer changes its class, as adapters do it; its quantizers belong to whoever trains them, so that the model's state
dict is what it was. Attention's probabilities and values, the patches and the head are not quantized.
"""

import math
from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

from fisherexp.methods.compression.learned_grids import LSQ, ShiftedLSQ, StatsQ
from fisherexp.models.vit import Attention

WeightGrid = StatsQ | LSQ


class QuantizedLinear(nn.Linear):
    """weight_grid, input_grid: plain attributes, no submodules."""

    weight_grid: WeightGrid
    input_grid: ShiftedLSQ

    @classmethod
    def of(cls, layer: nn.Linear, weight_grid: WeightGrid, input_grid: ShiftedLSQ) -> Self:
        """Exchange the class of a layer."""
        layer.__class__ = cls
        layer.__dict__.update(weight_grid=weight_grid, input_grid=input_grid)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.input_grid(x), self.weight_grid(self.matrix()), self.bias)

    def matrix(self) -> Tensor:
        """What is quantized."""
        return self.weight


class ProductAttention(Attention):
    """Attention whose queries and keys are quantized as one matrix (QKR): of each head h, with d = dim / heads,

        logits = x Q(W_h) xᵀ / √d,   W_h = W_query,hᵀ W_key,h (dim, dim);   biases of query and key are left out

    weight_grid: of the heads' W_h, one below the other. input_grid: of x. product_grid: of x Q(W_h)ᵀ.
    """

    weight_grid: WeightGrid
    input_grid: ShiftedLSQ
    product_grid: ShiftedLSQ

    @classmethod
    def of(
        cls, attention: Attention, weight_grid: WeightGrid, input_grid: ShiftedLSQ, product_grid: ShiftedLSQ
    ) -> Self:
        """Exchange the class of an attention."""
        attention.__class__ = cls
        attention.__dict__.update(weight_grid=weight_grid, input_grid=input_grid, product_grid=product_grid)
        return attention

    def matrix(self) -> Tensor:
        """(heads · dim, dim)"""
        query, key = (layer.weight.unflatten(0, (self.heads, -1)) for layer in (self.query, self.key))
        return (query.mT @ key).flatten(0, 1)

    def logits(self, x: Tensor) -> Tensor:
        """(B, heads, T, T) of tokens (B, T, dim)."""
        x = self.input_grid(x)
        keys = self.product_grid(F.linear(x, self.weight_grid(self.matrix())))
        keys = keys.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return x[:, None] @ keys.mT / math.sqrt(x.shape[-1] / self.heads)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.logits(x).softmax(dim=-1) @ self._split(self.value(x))
        return self.out(mixed.transpose(1, 2).flatten(2))


def attentions(model: nn.Module) -> dict[str, Attention]:
    """By name. Raises ValueError if there is none, or one that is causal."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, Attention)}
    if not found or any(attention.causal for attention in found.values()):
        raise ValueError("ofq quantizes the blocks of a vision transformer; nearest: model=small_vit, model=vit_tiny")
    return found
