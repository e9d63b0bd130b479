"""Σ_n (g_nᵀ x_n)∘2: squared per-sample outer products summed over samples, the inner loop of the Fisher.

The arithmetic is that of the ordinary weight gradient plus one multiply-add per weight and sample; what costs is
writing the per-sample products to memory and reading them back. On a CPU each product is formed in a buffer
that stays in cache, small ones of several samples, large ones by blocks of rows; on other devices as many as fit
its memory are formed at once.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from .base import chunks

# Of each thread: buffer and running sum together stay near its core (measured: 1 MB L2, shared L3).
BLOCK_BYTES = 5 * 2**19


def add_squared_outers(parts: Iterable[tuple[Tensor, Tensor]], total: Tensor) -> None:
    """Add Σ_n (Σ_t g_nt x_ntᵀ)² to `total` (O, K) for a batch in parts, each g (N, T, O) and x (N, T, K)."""
    add = add_in_cache if total.device.type == "cpu" else add_many_at_once
    add(parts, total)


def add_in_cache(parts: Iterable[tuple[Tensor, Tensor]], total: Tensor, block_bytes: int = BLOCK_BYTES) -> None:
    """Products in a buffer of at most `block_bytes` per thread: of several samples, or of some rows of one sample."""
    threads, (o, k) = torch.get_num_threads(), total.shape
    several = block_bytes // (2 * total.nbytes)  # half of it: the running sum is read as often
    # Threads share rows, of which the transposed product has more; its sum is turned round once for all parts.
    turned = torch.zeros(k, o, dtype=total.dtype) if several < 4 and threads > 1 and k > o else None
    for g, x in parts:
        if several >= 4:
            add_several(g, x, total, threads * several)
        elif turned is None:
            add_rows(g, x, total, block_bytes * threads)
        else:
            add_rows(x, g, turned, block_bytes * threads)
    if turned is not None:
        total += turned.mT


def add_several(g: Tensor, x: Tensor, total: Tensor, samples: int) -> None:
    """`samples` at a time, which threads share among them: small products keep one thread only busy."""
    buffer = torch.empty(min(samples, g.shape[0]), *total.shape, dtype=total.dtype, device=total.device)
    for left, right in zip(g.mT.split(samples), x.split(samples), strict=True):
        products = buffer[: left.shape[0]]
        torch.bmm(left, right, out=products)
        for product in products.unbind(0):
            total.addcmul_(product, product)


def add_rows(g: Tensor, x: Tensor, total: Tensor, buffer_bytes: int) -> None:
    """One sample and one block of rows at a time, in a buffer of at most `buffer_bytes`.

    Each thread forms rows of its own and squares the same rows, which then still lie in the cache of its core.
    """
    o, k = total.shape
    block = max(1, min(o, buffer_bytes // (k * total.element_size())))
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


def add_many_at_once(parts: Iterable[tuple[Tensor, Tensor]], total: Tensor) -> None:
    """As many samples at a time as the device's scratch memory holds."""
    for g, x in parts:
        for rows in chunks(g.shape[0], total.numel() * total.element_size(), device=total.device.type):
            total += torch.bmm(g[rows].mT, x[rows]).square_().sum(0)
