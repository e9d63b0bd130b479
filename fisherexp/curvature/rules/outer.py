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
ROWS_BYTES = 2**20  # of rows of one product, and so of their sums: faster by a tenth than BLOCK_BYTES (2 MB L2)
GRAIN = 2**15  # torch leaves smaller tensors to one thread


def add_squared_outers(parts: Iterable[tuple[Tensor, Tensor]], total: Tensor) -> None:
    """Add Σ_n (Σ_t g_nt x_ntᵀ)² to `total` (O, K) for a batch in parts, each g (N, T, O) and x (N, T, K).

    On a CPU, where `total` is `large`, g and x may also be lists of matrices, samples of different lengths T.
    """
    add = add_in_cache if total.device.type == "cpu" else add_many_at_once
    add(parts, total)


def add_in_cache(parts: Iterable[tuple[Tensor, Tensor]], total: Tensor, block_bytes: int = BLOCK_BYTES) -> None:
    """Products in a buffer of at most `block_bytes` per thread: of several samples, or of some rows of one sample."""
    threads = torch.get_num_threads()
    if total.mT.is_contiguous():
        turned, sums = True, total.mT
    elif better_turned(total, block_bytes):  # and turned round once for all parts
        turned, sums = True, total.new_zeros(total.mT.shape)
    else:
        turned, sums = False, total
    for g, x in parts:
        left, right = (x, g) if turned else (g, x)
        if large(total, block_bytes):
            add_rows(left, right, sums, threads * min(block_bytes, ROWS_BYTES))
        else:  # half for the products: the running sum is read as often
            add_several(left, right, sums, threads * (block_bytes // (2 * total.nbytes)))
    if turned and sums.data_ptr() != total.data_ptr():
        total += sums.mT


def large(total: Tensor, block_bytes: int = BLOCK_BYTES) -> bool:
    """Whether half of `block_bytes` has room for less than four products of the size of `total`."""
    return 8 * total.nbytes > block_bytes


def better_turned(total: Tensor, block_bytes: int = BLOCK_BYTES) -> bool:
    """Whether sums (O, ...) are better formed with O last: threads share rows of a large product, then more of them."""
    return torch.get_num_threads() > 1 and large(total, block_bytes) and total.shape[0] ** 2 < total.numel()


def add_several(g: Tensor, x: Tensor, total: Tensor, samples: int) -> None:
    """`samples` at a time, shared among threads: each forms products of its own and squares the same ones, which
    then still lie in the cache of its core.
    """
    threads = torch.get_num_threads() if total.numel() >= GRAIN else 1
    samples = max(threads, min(samples, g.shape[0]) // threads * threads)
    buffer = torch.empty(samples, *total.shape, dtype=total.dtype, device=total.device)
    sums = total.unsqueeze(0) if threads == 1 else total.new_zeros(threads, *total.shape)
    for left, right in zip(g.mT.split(samples), x.split(samples), strict=True):
        products = buffer[: left.shape[0]]
        torch.bmm(left, right, out=products)
        shared = products.shape[0] // threads * threads
        if shared:
            for product in products[:shared].unflatten(0, (threads, -1)).unbind(1):
                sums.addcmul_(product, product)
        for product in products[shared:].unbind(0):
            total.addcmul_(product, product)
    if threads > 1:
        total += sums.sum(0)


def add_rows(g: Iterable[Tensor], x: Iterable[Tensor], total: Tensor, buffer_bytes: int) -> None:
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
        for left, right in zip(g, x, strict=True):
            left = left[:, start : start + block].unflatten(1, (threads, -1)).permute(1, 2, 0)
            torch.bmm(left, right.expand(threads, -1, -1), out=shares)
            part.addcmul_(product, product)


def add_many_at_once(parts: Iterable[tuple[Tensor, Tensor]], total: Tensor) -> None:
    """As many samples at a time as the device's scratch memory holds."""
    for g, x in parts:
        for rows in chunks(g.shape[0], total.numel() * total.element_size(), device=total.device.type):
            total += torch.bmm(g[rows].mT, x[rows]).square_().sum(0)
