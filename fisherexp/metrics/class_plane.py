"""The plane of three classifier rows, in which "Pushing Boundaries" (arXiv 2402.06171) draws last-layer features."""

import torch
from torch import Tensor


def coordinates(features: Tensor, rows: Tensor) -> Tensor:
    """Features (n, d) in the plane of three classifier rows (3, d): coordinates (n, 2).

    A Q (h - w̄), where w̄ is the mean of the rows, Q = U Vᵀ from the singular value decomposition of rows - w̄ without
    the vanishing value (the nearest partial isometry: directions count, scales do not), and A maps a simplex ETF of
    R³ onto an equilateral triangle. For an exact simplex ETF that is what the rows themselves become.
    """
    center = rows.mean(0)
    left, _, right = torch.linalg.svd(rows - center, full_matrices=False)
    isometry = left[:, :2] @ right[:2]
    onto = torch.tensor([[0.5, -0.5, 0.0], [0.0, 0.0, 0.75**0.5]], dtype=rows.dtype, device=rows.device)
    centering = torch.eye(3, dtype=rows.dtype, device=rows.device) - 1 / 3
    return (features - center) @ (2**0.5 * onto @ centering @ isometry).T
