"""Optimal Brain Surgeon along the columns of a matrix: each is changed in turn, and the later ones make up for it.

With H = E[x xᵀ] + δ mean(diag H) I and H⁻¹ = Uᵀ U, U upper triangular (Cholesky): once column j has become q_j,

    W_:k ← W_:k - (w_j - q_j) U_jk / U_jj,   k > j

which is the least loss of outputs E‖(W - Ŵ) x‖² that columns k > j can still arrive at. Frantar, Alistarh 2022,
arXiv 2208.11580; GPTQ (arXiv 2210.17323) and SparseGPT (arXiv 2301.00774) are two ways to choose q_j. Inputs that never
occur have the diagonal 1 and no part in the mean: their columns are left to themselves. The official codes set them to
zero, and take the mean with those ones.
"""

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 128  # columns whose updates are made at once: a matter of speed


def inverse_factor(moment: Tensor, damping: float) -> Tensor:
    """U, float64: (m, m) of E[x xᵀ] (m, m), its diagonal (m,) of a diagonal (m,). damping: δ."""
    moment = moment.double().clone()
    diagonal = moment if moment.dim() == 1 else moment.diagonal()
    never = diagonal == 0
    diagonal += damping * diagonal.mean()
    diagonal[never] = 1.0  # not before: the mean is that of inputs, at whatever scale
    if moment.dim() == 1:
        return diagonal.rsqrt()
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(moment)), upper=True)


def column_by_column(
    weight: Tensor, factor: Tensor, choose: Callable[[int, Tensor], Tensor], multiple: int = 1
) -> Tensor:
    """W (n, m) after all columns, float64. factor: U, or its diagonal (m,): nothing is made up for.

    choose: q_j (n,) of j and columns j … (n, …) as they are by then: those up to the next multiple of `multiple`
    columns at least.
    """
    left, chosen = weight.double().clone(), torch.empty_like(weight, dtype=torch.float64)
    if factor.dim() == 1:
        for j in range(weight.shape[1]):
            chosen[:, j] = choose(j, left[:, j:])
        return chosen
    width, columns = multiple * max(1, BLOCK // multiple), weight.shape[1]
    for start in range(0, columns, width):
        stop = min(start + width, columns)
        block, errors = left[:, start:stop], torch.empty_like(left[:, start:stop])
        for j in range(stop - start):
            row = factor[start + j, start + j : stop]
            chosen[:, start + j] = choose(start + j, block[:, j:])
            errors[:, j] = (block[:, j] - chosen[:, start + j]) / row[0]
            block[:, j:] -= errors[:, j, None] * row
        left[:, stop:] -= errors @ factor[start:stop, stop:]
    return chosen
