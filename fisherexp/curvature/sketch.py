"""What a verification keeps of a large parameter's gradient: random projections instead of the gradient itself.

For a gradient G as a matrix (rows, columns) and K pairs of independent normal vectors, the numbers l_kᵀ G r_k / √K
are linear in G and the expectation of their sum of squares is ‖G‖²_F. Of an outer product g xᵀ they are
(l_k·g)(x·r_k) / √K, so that a linear layer's gradient need not be formed. With eight pairs the norm of a difference of
rank one, the worst kind, is taken for less than a tenth of itself in 1.3 of 10⁴ draws, and for less than a thirtieth in
about one of 10⁷ (of 4·10⁷ products of normal numbers); it was never taken for more than eight times itself.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

PAIRS = 8
SMALL = 2**12  # entries up to which a gradient is kept whole


class Sketch:
    """Projections of the gradients of one parameter, `like`. Drawn from `generator`, which is on the CPU."""

    def __init__(self, like: Tensor, generator: torch.Generator):
        self.whole = like.numel() <= SMALL
        self.dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        if not self.whole:
            rows = like.shape[0]
            kind = {"generator": generator, "dtype": self.dtype}
            self.left = torch.randn(rows, PAIRS, **kind).to(like.device) / PAIRS**0.5
            self.right = torch.randn(like.numel() // rows, PAIRS, **kind).to(like.device)

    def of(self, gradient: Tensor) -> Tensor:
        """Of a gradient in the parameter's shape; a small one itself, flat."""
        gradient = gradient.detach().to(self.dtype)
        if self.whole:
            return gradient.flatten()
        return ((gradient.reshape(len(self.left), -1) @ self.right) * self.left).sum(0)

    def of_outer(self, g: Tensor, x: Tensor) -> Tensor:
        """Of Σ_t g_t x_tᵀ, for g (T, rows) and x (T, columns)."""
        g, x = g.to(self.dtype), x.to(self.dtype)
        return (g.mT @ x).flatten() if self.whole else ((g @ self.left) * (x @ self.right)).sum(0)

    def of_convolution(self, g: Tensor, x: Tensor, shape: Sequence[int], convolution: Callable) -> Tensor:
        """Of the gradient, in `shape`, of a large weight of `convolution(x, weight)`, g being that of the result: the
        r_k are convolved as weights of their own. Both (samples, channels, *space).
        """
        g, x = g.to(self.dtype), x.to(self.dtype)
        projected = torch.einsum("no...,ok->nk...", g, self.left)
        found = projected * convolution(x, self.right.mT.reshape(-1, *shape[1:]))
        return found.transpose(0, 1).flatten(1).sum(1)

    def of_rows(self, index: Tensor, g: Tensor, rows: int) -> Tensor:
        """Of the gradient (rows, columns) to whose row index_t each g_t (columns,) is added."""
        g = g.to(self.dtype)
        if self.whole:
            return g.new_zeros(rows, g.shape[-1]).index_add_(0, index, g).flatten()
        return (self.left[index] * (g @ self.right)).sum(0)
