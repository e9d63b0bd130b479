"""Which matrices may share a basis: clusters that grow while a bound on their joint error stays below ε.

A cluster begins with the largest block that is left. The others are tried one after the other, those that the cluster's
first block approximates best first (order='residual') or the smallest first ('norm'), and each is taken whose company
keeps the bound below ε. As in the authors' code of arXiv 2601.11626 the order is not made anew as the cluster grows.
Where that code differs: it stops at the first block that does not fit; it begins with the largest block and those next
in size as long as they are at most r wide together, which its `norm` bound, too, takes for one block; after ten
clusters in a row that did not grow it leaves all other blocks alone; and its classes' default is order='norm'.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from fisherexp.methods.compression.shared_basis import Bound, add, begin, bound, incremental_error

Order = Literal["residual", "norm"]


def clusters(
    blocks: Mapping[str, Tensor], rank: int, epsilon: float, kind: Bound = "incremental", order: Order = "residual"
) -> list[list[str]]:
    """Names of blocks (m, n_j) of one m, the largest cluster's first block first. A block whose own error is above ε is
    alone."""
    left = sorted(blocks, key=lambda name: float(blocks[name].double().norm()), reverse=True)
    found = []
    while left:
        seed, *left = left
        members, basis = [seed], begin(blocks[seed], rank)
        if incremental_error(basis, rank) <= epsilon:
            for name in _ordered(blocks, left, basis.columns, order):
                if kind == "incremental":
                    wider = add(basis, blocks[name], rank)
                    fits = incremental_error(wider, rank) <= epsilon
                    basis = wider if fits else basis
                else:
                    fits = bound([*(blocks[member] for member in members), blocks[name]], rank, kind) <= epsilon
                if fits:
                    members.append(name)
        left = [name for name in left if name not in members]
        found.append(members)
    return found


def _ordered(blocks: Mapping[str, Tensor], names: list[str], columns: Tensor, order: Order) -> list[str]:
    if order == "norm":
        return names[::-1]

    def outside(name: str) -> float:
        block = blocks[name].double()
        return float(torch.linalg.matrix_norm(block - columns @ (columns.T @ block)))

    return sorted(names, key=outside)
