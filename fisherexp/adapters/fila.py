"""FILA: LoRA that begins with the part of the weight whose rows matter most, which is taken out of what is frozen.

Fisher-initialized low-rank adapters of LoKU: Cha, Cho, Hwang, Lee, ICLR 2025, arXiv 2408.06621. With the importance
w_i ≥ 0 of row i, its SVD diag(w) W = U diag(s) Vᵀ and c = α / r,

    W' = W + c (B A - B_0 A_0),   B_0 = diag(1 / (w + ε)) U_r diag(√(s_r / c)),   A_0 = diag(√(s_r / c)) V_rᵀ

B and A start from B_0 and A_0, so that W' = W. c B_0 A_0 is, up to ε, the best approximation of W of rank r when the
error of row i counts w_i². w = 1 is PiSSA. As there, W stays what it was, where the authors store W - c B_0 A_0.

The authors' decomposition is a randomized one without oversampling, torch.svd_lowrank(q=r), which can be far from the
best; the default here is exact.
"""

from typing import Literal

import torch
from torch import Tensor

from fisherexp.adapters.pissa import ResidualLoRA, check_rank, singular_factors

EPSILON = 1e-5


class FILA(ResidualLoRA):
    """importance: w (m,), of the rows. svd: 'exact', or 'randomized' as the authors have it, which draws from torch's
    generator. Others as for PiSSA.

    Raises ValueError for a rank above min(m, n), and for importances that are not one number ≥ 0 a row.
    """

    def __init__(
        self,
        weight: Tensor,
        rank: int,
        alpha: float | None = None,
        *,
        importance: Tensor,
        svd: Literal["exact", "randomized"] = "exact",
    ) -> None:
        check_rank(weight, rank)
        if importance.shape != weight.shape[:1] or not bool((importance >= 0).all()):
            raise ValueError(f"the rows of a weight {tuple(weight.shape)} need one importance each, none below zero")
        super().__init__(weight, *weighted_factors(weight, importance.to(weight.device), rank, svd), alpha)


def weighted_factors(weight: Tensor, importance: Tensor, rank: int, svd: str) -> tuple[Tensor, Tensor]:
    """B (m, r) and A (r, n): the leading part of diag(w) W, divided by w + ε in B. In W's type."""
    w = importance.double()[:, None]
    weighted = w * weight.double()
    if svd == "exact":
        up, down = singular_factors(weighted, slice(rank))
    else:
        u, s, v = torch.svd_lowrank(weighted, q=rank, niter=2)
        up, down = u * s.sqrt(), s.sqrt()[:, None] * v.T
    return (up / (w + EPSILON)).to(weight), down.to(weight)
