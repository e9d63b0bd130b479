"""How much one attention head writes of what a later one reads, from their weights alone.

Row vectors: x becomes x W_V W_O, and a query x attends to x' by x W_QK x'ᵀ, with W_OV = W_V W_O, W_QK = W_Q W_Kᵀ. The
score of composition of head A with a head B of a later layer is (Elhage et al. 2021, "A Mathematical Framework for
Transformer Circuits")

    S(A, B) = ‖W_OV^A Y‖_F / (‖W_OV^A‖_F ‖Y‖_F),    Y = W_QK^B (q),  W_QK^Bᵀ (k),  W_OV^B (v)

W_OV^A = Σ_c σ_c u_c v_cᵀ, and each channel c has a score of its own, S_c = ‖v_cᵀ Y‖ / ‖Y‖, with
S² ‖W_OV‖² = Σ σ_c² S_c² (Merullo, Eickhoff, Pavlick, "Talking Heads", NeurIPS 2024, arXiv 2406.09519: heads talk
through few of them). Random matrices of the same shapes, whose S is near √(1/d), are what a score is judged by.

Nothing of size d × d is formed. Of one factor of each side a triangle is all that a norm needs: with W_V = Q R and
Y = N Q'ᵀ, S is ‖M N‖ / (‖M‖ ‖N‖) with M = R W_O (h, d) and N (d, h), made once for each head, whatever it is paired
with.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Mode = Literal["q", "k", "v"]
MODES: tuple[Mode, ...] = ("q", "k", "v")


class Heads(NamedTuple):
    """Of H heads of one layer: query, key, value (H, d, h), output (H, h, d)."""

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor


class Product(NamedTuple):
    """left @ right, (…, d, h) and (…, h, d)."""

    left: Tensor
    right: Tensor

    @property
    def core(self) -> Tensor:
        """(…, h, h), with the same singular values."""
        return torch.linalg.qr(self.left)[1] @ torch.linalg.qr(self.right.mT)[1].mT

    def norm(self) -> Tensor:
        return torch.linalg.matrix_norm(self.core)


class Channels(NamedTuple):
    """W = Σ_c σ_c u_c v_cᵀ: u (…, d, h), falling σ (…, h), v (…, d, h)."""

    left: Tensor
    values: Tensor
    right: Tensor


def written(heads: Heads) -> Product:
    """W_OV."""
    return Product(heads.value.double(), heads.output.double())


def read(heads: Heads, mode: Mode) -> Product:
    """What a head reads of the residual stream in its queries, keys or values: Y above."""
    if mode == "v":
        return written(heads)
    query, key = heads.query.double(), heads.key.double()
    return Product(query, key.mT) if mode == "q" else Product(key, query.mT)


def writes(heads: Heads) -> Tensor:
    """M (H, h, d) of each head, over its norm."""
    product = written(heads)
    return _unit(torch.linalg.qr(product.left)[1] @ product.right)


def reads(heads: Heads, mode: Mode) -> Tensor:
    """N (H, d, h) of each head, over its norm."""
    product = read(heads, mode)
    return _unit(product.left @ torch.linalg.qr(product.right.mT)[1].mT)


def paired(writing: Tensor, reading: Tensor) -> Tensor:
    """S (H, H') of what `writes` and `reads` gave: one product of two matrices."""
    product = writing.flatten(0, 1) @ reading.transpose(0, 1).flatten(1)
    blocks = product.view(len(writing), writing.shape[1], len(reading), reading.shape[2])
    return blocks.square().sum((1, 3)).sqrt()


def scores(first: Heads, second: Heads, mode: Mode) -> Tensor:
    """S of each of H heads with each of H' later ones, (H, H')."""
    return paired(writes(first), reads(second, mode))


def _unit(matrix: Tensor) -> Tensor:
    norm = torch.linalg.matrix_norm(matrix)[:, None, None]
    return matrix / norm.where(norm > 0, 1.0)  # a head without weights scores 0


def channels(heads: Heads) -> Channels:
    """Of W_OV of each of H heads."""
    product = written(heads)
    (q_left, r_left), (q_right, r_right) = torch.linalg.qr(product.left), torch.linalg.qr(product.right.mT)
    left, values, right = torch.linalg.svd(r_left @ r_right.mT)
    return Channels(q_left @ left, values, q_right @ right.mT)


def channel_scores(found: Channels, second: Heads, mode: Mode) -> Tensor:
    """S_c of each channel of H heads with each of H' later ones, (H, H', h)."""
    return torch.linalg.vector_norm(found.right.mT[:, None] @ reads(second, mode)[None], dim=-1)


def random_scores(width: int, first: int, second: int, draws: int, generator: torch.Generator) -> Tensor:
    """S of `draws` pairs of random products of width d, of h and h' dimensions: (draws,)."""
    shapes = [(draws, width, first), (draws, first, width), (draws, width, second), (draws, second, width)]
    a, b, c, d = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    x, y = Product(a, b), Product(c, d)
    left, right = torch.linalg.qr(x.left)[1], torch.linalg.qr(y.right.mT)[1].mT
    return torch.linalg.matrix_norm(left @ (x.right @ y.left) @ right) / (x.norm() * y.norm())


def without_channels(heads: Heads, found: Channels, removed: Tensor) -> Tensor:
    """Outputs W_O (H, h, d) with which W_OV lacks the channels that `removed` (H, h) marks. W_V stays: several heads
    may have it in common."""
    inverse = torch.linalg.pinv(heads.value.double())  # some of its columns may be zero
    part = (inverse @ found.left) * (found.values * removed)[..., None, :] @ found.right.mT
    return heads.output.double() - part
