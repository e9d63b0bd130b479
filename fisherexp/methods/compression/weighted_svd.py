"""The best low-rank factors of a matrix whose rows and columns matter unequally, and weights for them from a Fisher.

min_{L,R} ‖ diag(row) (W - L R) diag(col) ‖_F    by the SVD of diag(row) W diag(col)  (Eckart, Young 1936)
"""

from typing import Literal

import torch
from torch import Tensor

from fisherexp.quantization import Root, weighted_low_rank

Axis = Literal["out", "in", "two_sided"]


def weighted_svd(
    weight: Tensor, row: Tensor, col: Tensor, rank: int, svd: Literal["exact", "randomized"] = "exact"
) -> tuple[Tensor, Tensor]:
    """Factors L (n, r) and R (r, m) of W (n, m), singular values shared as roots. row (n,), col (m,) > 0.

    Computed in float64, returned in W's type. r is `rank`, or fewer where W has fewer rows or columns. svd:
    see `weighted_low_rank`.
    """
    roots = (Root(each.double(), 1 / each.double()) for each in (col, row))
    left, right = weighted_low_rank(weight, rank, *roots, svd)
    return left.to(weight), right.to(weight)


def fisher_scales(fisher: Tensor, axis: Axis, floor: float = 1e-6) -> tuple[Tensor, Tensor]:
    """(row, col) weights from the Fisher (n, m) of a matrix: roots of its row or column means over the mean of all, or
    ones.

    A dead unit has no Fisher, and its weights could become anything: no mean counts as less than `floor` times their
    mean. A matrix without any Fisher has unit weights. Over the mean, as a Fisher's own scale, 1e-8 say, would go into
    the factors: one small and the other large, of which fine-tuning with one learning rate makes nothing.
    """
    fisher = fisher.double()
    ones = [torch.ones(size, dtype=fisher.dtype, device=fisher.device) for size in fisher.shape]
    if not fisher.any():
        return ones[0], ones[1]
    means = [fisher.mean(dim=1) / fisher.mean(), fisher.mean(dim=0) / fisher.mean()]
    row, col = (mean.clamp(min=floor).sqrt() for mean in means)
    return (row if axis != "in" else ones[0]), (col if axis != "out" else ones[1])
