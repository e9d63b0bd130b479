"""The best low-rank factors of a matrix whose inputs and outputs matter unequally.

    min_{B,A} ‖ Lᵀ (D - B A) S ‖_F,   Lᵀ D S = U Σ Vᵀ   ⟹   B = L⁻ᵀ U_r √Σ_r,   A = √Σ_r V_rᵀ S⁻¹

by Eckart, Young 1936; the squared minimum is Σ_{i>r} σ_i². S Sᵀ is the weight of inputs, E[x xᵀ] for the mean squared
error of the outputs, and L Lᵀ that of outputs; any S with the same S Sᵀ gives the same B A (QERA, arXiv 2410.06040).
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

# Eigenvalues at or below m · EPSILON · the largest are none, in the root and in its inverse. GPTQModel's rule has that
# of float32; all is float64 here, and beside one input a hundred times as large 1000 others would be none.
EPSILON = torch.finfo(torch.float64).eps
SVD = Literal["exact", "randomized"]
OVERSAMPLING = 10  # of randomized
POWER_ITERATIONS = 8  # that of rounding errors falls slowly


class Root(NamedTuple):
    """S and its inverse, both (m, m), or (m,) where they are diagonal. Where S is singular, the inverse is on its
    range."""

    root: Tensor
    inverse: Tensor


def psd_root(moment: Tensor, symmetric: bool = True) -> Root:
    """S with S Sᵀ = R, of R (m, m), symmetric and positive semi-definite, or of its diagonal (m,); float64.

    symmetric: R^½; otherwise E √Λ of R = E Λ Eᵀ, which saves a product.
    """
    moment = moment.double()
    if moment.dim() == 1:
        root, inverse = _roots(moment)
        return Root(root, inverse)
    values, vectors = torch.linalg.eigh((moment + moment.T) / 2)
    root, inverse = _roots(values)
    if symmetric:
        return Root((vectors * root) @ vectors.T, (vectors * inverse) @ vectors.T)
    return Root(vectors * root, inverse[:, None] * vectors.T)


def _roots(values: Tensor) -> tuple[Tensor, Tensor]:
    largest = values.max().clamp_min(torch.finfo(values.dtype).tiny)
    there = values > len(values) * EPSILON * largest
    roots = torch.where(there, values, 1.0).sqrt()
    return roots * there, there / roots


def weighted_low_rank(
    matrix: Tensor, rank: int, inputs: Root | None = None, outputs: Root | None = None, svd: SVD = "exact"
) -> tuple[Tensor, Tensor]:
    """Factors B (n, r) and A (r, m) of D (n, m), float64, singular values shared as roots.

    r is `rank`, or fewer where D has fewer rows or columns. inputs: S of the m inputs. outputs: L of the n outputs.
    None is for ones. svd: randomized costs n m r in place of n m min(n, m), and loses a little more (see
    `randomized_svd`).
    """
    weighted = matrix.double()
    if inputs is not None:
        weighted = _from_right(weighted, inputs.root)
    if outputs is not None:
        weighted = _from_right(weighted.T, outputs.root).T
    if svd == "exact":
        left, values, right = torch.linalg.svd(weighted, full_matrices=False)
    else:
        left, values, right = randomized_svd(weighted, rank)
    roots = values[:rank].sqrt()
    up, down = left[:, :rank] * roots, roots[:, None] * right[:rank]
    if inputs is not None:
        down = _from_right(down, inputs.inverse)
    if outputs is not None:
        up = _from_right(up.T, outputs.inverse).T
    return up, down


def randomized_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U (n, r), σ (r,), Vᵀ (r, m) of nearly the best approximation of D (n, m) (Halko, Martinsson, Tropp 2011, arXiv
    0909.4061). The same for the same matrix: no generator moves on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        left, values, right = torch.svd_lowrank(matrix, min(rank + OVERSAMPLING, *matrix.shape), POWER_ITERATIONS)
    return left[:, :rank], values[:rank], right[:, :rank].T


def _from_right(matrix: Tensor, factor: Tensor) -> Tensor:
    """matrix times factor, which is (m, m) or a diagonal (m,)."""
    return matrix * factor if factor.dim() == 1 else matrix @ factor
