"""Σ_n (g_nᵀ x_n)∘2: squared per-sample outer products summed over samples, the inner loop of the Fisher.

The arithmetic is that of the ordinary weight gradient plus one multiply-add per weight and sample; what costs is
writing the per-sample products to memory and reading them back. On a CPU each product is formed in one buffer
that stays in cache, rows of large weights in blocks; on other devices several samples are formed at once.
"""

import torch
from torch import Tensor

from .base import CHUNK_BYTES, chunks

BLOCK_BYTES = 5 * 2**19  # buffer and running sum together stay near the core (measured: 1 MB L2, shared L3)


def add_squared_outer(g: Tensor, x: Tensor, total: Tensor) -> None:
    """g (N, T, O), x (N, T, K): add Σ_n (Σ_t g_nt x_ntᵀ)² to `total` (O, K)."""
    o, k = total.shape
    size = total.element_size()
    if total.device.type != "cpu":
        for rows in chunks(g.shape[0], o * k * size, 16 * CHUNK_BYTES):
            total += torch.bmm(g[rows].mT, x[rows]).square_().sum(0)
        return
    block = max(1, min(o, BLOCK_BYTES // (k * size)))
    block = -(-o // -(-o // block))  # blocks of equal height
    buffer = torch.empty(block, k, dtype=total.dtype)
    for start in range(0, o, block):
        part = total[start : start + block]
        product = buffer[: part.shape[0]]
        for left, right in zip(g[:, :, start : start + block].mT.unbind(0), x.unbind(0), strict=True):
            torch.mm(left, right, out=product)
            part.addcmul_(product, product)
