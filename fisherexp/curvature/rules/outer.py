"""Σ_n (g_nᵀ x_n)∘2: squared per-sample outer products summed over samples, the inner loop of the Fisher.

The arithmetic is that of the ordinary weight gradient plus one multiply-add per weight and sample; what costs is
writing the per-sample products to memory and reading them back. On a CPU each product is formed in one buffer
that stays in cache, rows of large weights in blocks; on other devices several samples are formed at once.
"""

import torch
from torch import Tensor

from .base import chunks

BLOCK_BYTES = 5 * 2**19  # buffer and running sum together stay near the core (measured: 1 MB L2, shared L3)


def add_squared_outer(g: Tensor, x: Tensor, total: Tensor) -> None:
    """g (N, T, O), x (N, T, K): add Σ_n (Σ_t g_nt x_ntᵀ)² to `total` (O, K)."""
    (add_one_by_one if total.device.type == "cpu" else add_many_at_once)(g, x, total)


def add_one_by_one(g: Tensor, x: Tensor, total: Tensor, block_bytes: int = BLOCK_BYTES) -> None:
    """One sample and one block of rows at a time, in a buffer of at most `block_bytes`.

    Each thread forms rows of its own and squares the same rows, which then still lie in the cache of its core.
    """
    o, k = total.shape
    block = max(1, min(o, block_bytes // (k * total.element_size())))
    block = -(-o // -(-o // block))  # blocks of equal height
    buffer = torch.empty(block, k, dtype=total.dtype, device=total.device)
    for start in range(0, o, block):
        part = total[start : start + block]
        product = buffer[: part.shape[0]]
        threads = torch.get_num_threads() if part.shape[0] % torch.get_num_threads() == 0 else 1
        shares = product.unflatten(0, (threads, -1))
        lefts = g[:, :, start : start + block].unflatten(2, (threads, -1)).permute(0, 2, 3, 1)
        rights = x.unsqueeze(1).expand(-1, threads, -1, -1)
        for left, right in zip(lefts.unbind(0), rights.unbind(0), strict=True):
            torch.bmm(left, right, out=shares)
            part.addcmul_(product, product)


def add_many_at_once(g: Tensor, x: Tensor, total: Tensor) -> None:
    """As many samples at a time as the device's scratch memory holds."""
    for rows in chunks(g.shape[0], total.numel() * total.element_size(), device=total.device.type):
        total += torch.bmm(g[rows].mT, x[rows]).square_().sum(0)
