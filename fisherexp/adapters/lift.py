"""LIFT: the entries that are largest in a low-rank approximation of the weight are trained, chosen anew on the way.

Liu et al., ICML 2025, arXiv 2506.00772. With L = Σ_{i ≤ q} s_i u_i v_iᵀ of the singular decomposition of W',

    M = the k largest entries of |L|,   k = min(r (m + n), m n),   as in masks.py

The released configurations train the k smallest: their names lack the word that the code decides by ("largest").
"""

from typing import Literal

import torch
from torch import Tensor

from fisherexp.adapters.masks import Rechosen, budget, largest, smallest
from fisherexp.adapters.singular import singular_triplets


def principal_mask(weight: Tensor, filter_rank: int, count: int, select: str = "largest") -> Tensor:
    """Mask (m, n) of the `count` entries of W that are largest, or smallest, in its best approximation of rank q."""
    left, values, right = singular_triplets(weight, slice(filter_rank))
    return (largest if select == "largest" else smallest)(((left * values) @ right).abs(), count)


class LIFT(Rechosen):
    """weight: W (m, n). rank: r, of the budget. filter_rank: q, None for r. every: updates from one choice to the next,
    the first after every - 1, as in the authors' code; None for the first choice to the end. select: what of |L|.

    Trains min(r (m + n), m n) numbers at a time. Raises ValueError for a rank below 1.
    """

    def __init__(
        self,
        weight: Tensor,
        rank: int,
        filter_rank: int | None = None,
        every: int | None = None,
        select: Literal["largest", "smallest"] = "largest",
    ) -> None:
        count, filter_rank = budget(weight, rank), filter_rank or rank
        super().__init__(weight, principal_mask(weight, filter_rank, count, select))
        self.count, self.filter_rank, self.every, self.select = count, filter_rank, every, select

    @torch.no_grad()
    def renew(self, weight: Tensor, step: int, total: int) -> None:
        if self.every and (step + 2) % self.every == 0:
            self.rechoose(principal_mask(self.weight(weight), self.filter_rank, self.count, self.select), weight)
