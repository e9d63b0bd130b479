"""How well several matrices are approximated in one basis of rank r, without decomposing them all together.

    e_r(M) = √(1 - Σ_{i≤r} σ_i(M)² / ‖M‖²),    M = [A_1 … A_K],  all of m rows

"Concatenated Matrix SVD: Compression Bounds, Incremental Approximation, and Error-Constrained Clustering", arXiv
2601.11626. Each bound below is a lower one on Σ_{i≤r} σ_i(M)², so an upper one on e_r:

    norm         that of the best block alone, max_j Σ_{i≤r} σ_i(A_j)² (Weyl). The authors' code takes all of ‖A_j‖²,
                 which is no bound where a block has more than r columns
    residual     the r largest of all σ_i(R_j)², R_j what A_j has outside the span of the blocks before it
    incremental  of a basis of r + 5 columns that each block is added to, and that is cut to this size again
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Bound = Literal["incremental", "residual", "norm"]
OVERSAMPLING = 5  # columns beyond the rank, as published


class Basis(NamedTuple):
    """columns: orthonormal (m, k); gram: coefficients of all blocks times their transpose (k, k), diagonal and falling;
    total: Σ_j ‖A_j‖²."""

    columns: Tensor
    gram: Tensor
    total: Tensor


def error(kept: Tensor, total: Tensor) -> float:
    """e from Σ_{i≤r} σ_i² and ‖M‖², in float64: the difference would vanish in float32. 0 for a zero matrix."""
    return float((1 - kept.double() / total.double()).clamp(min=0).sqrt()) if float(total) > 0 else 0.0


def true_error(blocks: Sequence[Tensor], rank: int) -> float:
    """e_r of all blocks (m, n_j) together, by a decomposition of M."""
    squares = torch.linalg.svdvals(torch.cat([block.double() for block in blocks], 1)).square()
    return error(squares[:rank].sum(), squares.sum())


def begin(block: Tensor, rank: int) -> Basis:
    """The basis of one block (m, n)."""
    left, values, _ = torch.linalg.svd(block.double(), full_matrices=False)
    k = min(len(values), rank + OVERSAMPLING)
    return Basis(left[:, :k], values[:k].square().diag(), values.square().sum())


def add(basis: Basis, block: Tensor, rank: int) -> Basis:
    """The basis with another block (m, n)."""
    block = block.double()
    # Orthonormal whatever the block's rank: of what is left of a block outside of the basis alone, which may be nothing
    # but rounding errors in some directions, QR would make columns that need not be orthogonal to the basis.
    frame, _ = torch.linalg.qr(torch.cat([basis.columns, block], 1))
    old, new = frame.T @ basis.columns, frame.T @ block
    values, vectors = torch.linalg.eigh(old @ basis.gram @ old.T + new @ new.T)
    k = min(len(values), rank + OVERSAMPLING)
    largest = values.flip(0)[:k].clamp(min=0)
    columns = frame @ vectors.flip(1)[:, :k]
    return Basis(columns, largest.diag(), basis.total + block.square().sum())


def incremental(blocks: Iterable[Tensor], rank: int) -> Basis:
    """The basis of all blocks, one after the other."""
    first, *others = blocks
    basis = begin(first, rank)
    for block in others:
        basis = add(basis, block, rank)
    return basis


def incremental_error(basis: Basis, rank: int) -> float:
    return error(basis.gram.diagonal()[:rank].sum(), basis.total)


def norm_error(blocks: Sequence[Tensor], rank: int) -> float:
    best = max(torch.linalg.svdvals(block.double())[:rank].square().sum() for block in blocks)
    return error(best, sum(block.double().square().sum() for block in blocks))


def residual_error(blocks: Sequence[Tensor], rank: int) -> float:
    basis, pooled = blocks[0].new_zeros(len(blocks[0]), 0).double(), []
    for block in blocks:
        rest = block.double()
        for _ in range(2):
            rest = rest - basis @ (basis.T @ rest)
        left, values, _ = torch.linalg.svd(rest, full_matrices=False)
        size = float(block.double().norm())
        new = values > len(block) * torch.finfo(torch.double).eps * size
        basis = torch.cat([basis, left[:, new]], 1)
        pooled.append(values[new].square())
    total = sum(block.double().square().sum() for block in blocks)
    return error(torch.cat(pooled).sort(descending=True).values[:rank].sum(), total)


def bound(blocks: Sequence[Tensor], rank: int, kind: Bound) -> float:
    """An upper bound on e_r of all blocks together."""
    if kind == "incremental":
        return incremental_error(incremental(blocks, rank), rank)
    return (residual_error if kind == "residual" else norm_error)(blocks, rank)
