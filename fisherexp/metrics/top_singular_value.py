"""The largest singular value of a matrix, by power iteration."""

import torch
from torch import Tensor


@torch.no_grad()
def top_singular_value(matrix: Tensor, steps: int = 20) -> float:
    """σ₁ of a matrix (m, n), from below; start and so result are always the same. Error after `steps`: as
    (σ₂/σ₁)^(4 steps), relative."""
    matrix = matrix.double()
    start = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vector = start.to(matrix.device)
    for _ in range(steps):
        vector = torch.nn.functional.normalize(matrix.mT @ (matrix @ vector), dim=0)
    return (matrix @ vector).norm().item()
