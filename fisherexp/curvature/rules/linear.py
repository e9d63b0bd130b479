"""Linear: y = x Wᵀ + b, over any number of positions t of a sample (tokens, windows).

Per-sample gradients: G_n = Σ_t g_nt x_ntᵀ for W and Σ_t g_nt for b.
With one position the square factorizes, (g_i x_j)² = g_i² x_j², so Σ_n G_n∘G_n = (g∘g)ᵀ (x∘x): one product of
the size of the ordinary weight gradient (Goodfellow, "Efficient per-example gradient computations", 2015).
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Call, Use, chunks
from .outer import add_squared_outers, large
from .positions import spans

SQUARE_BYTES = 2**20  # squared inputs are formed some samples at a time; each part reads and writes the sums


@lru_cache(maxsize=16)
def _ones(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """For sums over samples that are added in the same operation."""
    return torch.ones(n, dtype=dtype, device=device)


class Linear(Use):
    """`F.linear(input, weight, bias)`."""

    recurring = True

    def __init__(self, call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None):
        super().__init__(call, weight=weight, bias=bias)
        self.save(input)

    def save(self, x):
        super().save(x)
        self.squares: Tensor | None = None

    def positions(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """(x, g) as (samples, positions, features)."""
        x = self.inputs(g.dtype)
        return x.reshape(x.shape[0], -1, x.shape[-1]), g.reshape(g.shape[0], -1, g.shape[-1])

    def per_sample(self, slot, g, rows):
        if slot == "bias":
            return g[rows].reshape(len(g[rows]), -1, g.shape[-1]).sum(1)
        x, g = self.positions(g)
        return g[rows].mT @ x[rows]

    def weighted(self, slot, g, rows, weights):
        if slot == "bias":
            return torch.tensordot(weights, self.per_sample(slot, g, rows), 1)
        g, x = self._outer(g, rows, weights)
        return g.mT @ x

    def sketched(self, slot, g, rows, weights, sketch):
        if slot == "bias":
            return super().sketched(slot, g, rows, weights, sketch)
        return sketch.of_outer(*self._outer(g, rows, weights))

    def _outer(self, g: Tensor, rows: slice, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(g, x), each (positions, features): the weighted sum of gradients is gᵀ x."""
        x, g = self.positions(g)
        return (g[rows] * weights[:, None, None]).flatten(0, 1), x[rows].flatten(0, 1)

    def add_squares(self, g, totals, last=True):
        if g.dim() == 2:
            self._add_factorized(g, totals, last)
            return
        if "bias" in totals:
            totals["bias"] += g.flatten(1, -2).sum(1).square_().sum(0)
        if "weight" in totals:
            self._add_positions(*self.positions(g), totals["weight"])

    def _add_positions(self, x: Tensor, g: Tensor, total: Tensor) -> None:
        """Several positions per sample; samples of which only one has a gradient factorize as well."""
        found = spans(g)
        if found is not None:
            single = [n for n, (start, stop) in enumerate(found) if stop == start + 1]
            places = [found[n][0] for n in single]
            total.addmm_(g[single, places].square().mT, x[single, places].square())
            several = [n for n, (start, stop) in enumerate(found) if stop > start + 1]
            if not several:
                return
            if self.call.kernel is None and large(total):  # these go one by one
                x, g = ([t[n, slice(*found[n])] for n in several] for t in (x, g))
            else:
                start, stop = min(found[n][0] for n in several), max(found[n][1] for n in several)
                rows = several if single else slice(None)
                x, g = x[rows, start:stop], g[rows, start:stop]
        if self.call.kernel is None:
            add_squared_outers([(g, x)], total)
        else:
            self._add_compiled(x, g, total)

    def _add_compiled(self, x: Tensor, g: Tensor, total: Tensor) -> None:
        """A convolution with a 1x1 kernel over positions in a row."""
        if not total.is_contiguous():  # the transposed layer's
            x, g, total = g, x, total.mT
        x = (x if x.stride(-1) == 1 else x.contiguous()).unsqueeze(1)
        self.call.kernel(g, x, total[:, None, None], [1, g.shape[1]], [1, 1], [0, 0], [1, 1])

    def _add_factorized(self, g: Tensor, totals: dict[str, Tensor], last: bool) -> None:
        """One position per sample. Gradients of several backward passes share x: their squares are added first."""
        squares = g.square() if self.squares is None else self.squares.addcmul_(g, g)
        self.squares = None if last else squares
        if not last:
            return
        squares = squares.mT
        if "bias" in totals:
            totals["bias"].addmv_(squares, _ones(g.shape[0], g.dtype, g.device))
        if "weight" in totals:
            x, total = self.inputs(g.dtype), totals["weight"]
            x = x if x.dim() == 2 else x.reshape(g.shape[0], -1)
            if x.nbytes <= SQUARE_BYTES:
                total.addmm_(squares, x.square())
                return
            for rows in chunks(x.shape[0], x.shape[1] * x.element_size(), SQUARE_BYTES, x.device.type):
                total.addmm_(squares[:, rows], x[rows].square())


RULES = {F.linear: Linear, torch._C._nn.linear: Linear}
