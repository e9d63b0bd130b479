"""Spectra of weights by submatrices of one shape, so that layers of different shapes can be compared (FARMS).

Hu et al., "Eigenspectrum Analysis of Neural Networks without Aspect Ratio Bias", ICML 2025, arXiv 2506.06280. The
exponent α of a matrix's spectrum depends on how much longer than wide it is, before it has learnt anything. Here
square windows of side k (Q = 1, as the authors' scripts have it; the default of their classes is 2) are laid over the
matrix, and the eigenvalues σ² of all of them are one spectrum.

Convolutions: one matrix for each place of the kernel, all windows together. The authors' code cuts the matrices into
squares and averages α over the cuts.
"""

import torch
from torch import Tensor


def eigenvalues(matrix: Tensor) -> Tensor:
    """The positive eigenvalues of W Wᵀ, rising, float64, of all of (…, m, n) together; what rounding leaves of zeros is
    left out: σ below max(m, n) ε of the largest, ε that of float32 for shorter types, too, in which a network is kept
    but was not computed."""
    values = torch.linalg.svdvals(matrix.double())
    epsilon = min(torch.finfo(matrix.dtype).eps, torch.finfo(torch.float32).eps)
    bound = values[..., :1] * max(matrix.shape[-2:]) * epsilon
    return values[values > bound].square().sort().values


def starts(side: int, window: int, positions: int) -> list[int]:
    """Where windows begin along a side: `positions` of them at most, evenly; the last need not touch the end."""
    step = max(1, (side - window) // max(1, positions - 1))
    return [step * place for place in range(min(positions, (side - window) // step + 1))]


def windows(matrices: Tensor, window: int, positions: int) -> Tensor:
    """All windows of matrices (K, m, n), (K · rows · columns, k, k). k is `window`, at most the shorter side."""
    k = min(window, *matrices.shape[-2:])
    down, across = (starts(side, k, positions) for side in matrices.shape[-2:])
    return torch.cat([matrices[:, i : i + k, j : j + k] for i in down for j in across])


def as_matrices(weight: Tensor) -> Tensor:
    """A weight (m, n) as one matrix (1, m, n); a kernel (m, n, …) as one for each of its places, (K, m, n)."""
    return weight[None] if weight.ndim == 2 else weight.flatten(2).permute(2, 0, 1)


def pooled(weight: Tensor, window: int | None = None, positions: int = 9) -> Tensor:
    """The eigenvalues (N,) of all windows of a weight (m, n) or kernel (m, n, …), rising.

    window: k; None for half of the shorter side. positions: of windows along each side, at most.
    """
    matrices = as_matrices(weight)
    k = max(1, min(matrices.shape[-2:]) // 2) if window is None else window
    return eigenvalues(windows(matrices, k, positions))
