"""The singular decomposition of a weight, computed in float64 and returned in the weight's type."""

import torch
from torch import Tensor


def singular_triplets(weight: Tensor, part: slice, rank: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """U (m, r), s (r,), Vᵀ (r, n): the `part` of W's (m, n) singular components, largest first.

    Raises ValueError for a `rank` (how many the part is meant to have) outside 1 … min(m, n).
    """
    if rank is not None and rank < 1:
        raise ValueError(f"rank={rank} must be at least 1")
    if rank is not None and rank > min(weight.shape):
        raise ValueError(f"rank={rank} is above {min(weight.shape)}, that of a weight {tuple(weight.shape)}")
    u, s, vt = torch.linalg.svd(weight.double(), full_matrices=False)
    return tuple(found.contiguous().to(weight) for found in (u[:, part], s[part], vt[part]))
