"""Embedding: y_nt = W[i_nt].

The gradient of sample n with respect to row v is Σ_{t: i_nt = v} g_nt: a token that occurs twice in a sample
is summed before squaring. Equal (sample, token) pairs are grouped, so nothing of size samples x vocabulary
is formed.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Call, NotFollowed, Use


class Embedding(Use):
    """`F.embedding(input, weight, padding_idx, max_norm, ...)`."""

    recurring = True

    def __init__(
        self,
        call: Call,
        input: Tensor,
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ):
        super().__init__(call, weight=weight)
        if max_norm is not None or scale_grad_by_freq:
            raise NotFollowed  # the weight changes in the forward pass; gradients depend on all tokens of the batch
        self.save(input)
        self.rows = weight.shape[0]
        self.padding = padding_idx if padding_idx is None or padding_idx >= 0 else self.rows + padding_idx

    def tokens(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (N, T) and their gradients (N, T, D), zero at the padding index."""
        index = self.inputs(g.dtype)
        index, g = index.reshape(index.shape[0], -1), g.reshape(g.shape[0], -1, g.shape[-1])
        if self.padding is not None:
            g = g.masked_fill((index == self.padding).unsqueeze(-1), 0)
        return index, g

    def per_sample(self, slot, g, rows):
        index, g = self.tokens(g)
        out = g.new_zeros(index[rows].shape[0], self.rows, g.shape[-1])
        return out.scatter_add_(1, index[rows].unsqueeze(-1).expand_as(g[rows]), g[rows])

    def weighted(self, slot, g, rows, weights):
        index, scaled = self._scaled(g, rows, weights)
        return g.new_zeros(self.rows, g.shape[-1]).index_add_(0, index, scaled)

    def sketched(self, slot, g, rows, weights, sketch):
        return sketch.of_rows(*self._scaled(g, rows, weights), self.rows)

    def _scaled(self, g: Tensor, rows: slice, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of these samples (T,) and their weighted gradients (T, D)."""
        index, g = self.tokens(g)
        return index[rows].flatten(), (g[rows] * weights[:, None, None]).flatten(0, 1)

    def add_squares(self, g, totals, last=True):
        index, g = self.tokens(g)
        samples = torch.arange(index.shape[0], device=index.device).unsqueeze(1)
        pairs, place = torch.unique(samples * self.rows + index, return_inverse=True)
        grouped = g.new_zeros(pairs.shape[0], g.shape[-1]).index_add_(0, place.flatten(), g.flatten(0, 1))
        totals["weight"].index_add_(0, pairs % self.rows, grouped.square_())


RULES = {F.embedding: Embedding}
