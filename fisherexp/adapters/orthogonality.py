"""How far the columns of a matrix are from orthonormal ones, with a gradient that is finite where they are."""

import torch
from torch import Tensor

NEGLIGIBLE = 1e-6


def orthogonality(factor: Tensor) -> Tensor:
    """‖Fᵀ F - I‖_F for F (m, r), a scalar, not squared: the penalty of AdaLoRA's and SORSA's code.

    The gradient of a norm has a fixed length however small the norm. Near orthonormal columns, as a decomposition
    yields them, its direction is made of rounding errors: below 1e-6 the gradient is zero here, which the authors'
    codes do not have.
    """
    gap = factor.T @ factor - torch.eye(factor.shape[1], dtype=factor.dtype, device=factor.device)
    norm = torch.linalg.matrix_norm(gap)
    return torch.where(norm < NEGLIGIBLE, norm.detach(), norm)
