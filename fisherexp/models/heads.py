"""Classification heads: the usual one, and one frozen at a simplex equiangular tight frame (ETF)."""

import torch
from torch import Tensor, nn

from fisherexp.config.types import Positive


def simplex_etf(num_classes: int, num_features: int) -> Tensor:
    """C unit rows in d dimensions with all cosines -1/(C-1), randomly oriented; shape (C, d).

    Raises ValueError for d < C - 1, where there is none.
    """
    if num_features < num_classes - 1:
        raise ValueError(f"a simplex ETF of {num_classes} classes needs {num_classes - 1} features, not {num_features}")
    centering = torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes
    within = torch.linalg.eigh(centering).eigenvectors[
        :, 1:
    ]  # orthonormal, shape (C, C - 1): centering = within withinᵀ
    basis, _ = torch.linalg.qr(torch.randn(num_features, num_classes - 1, dtype=torch.float64))
    return (num_classes / (num_classes - 1)) ** 0.5 * within @ basis.T


def linear_head(*, num_features: int, num_classes: int) -> nn.Linear:
    """Linear with bias, trained."""
    return nn.Linear(num_features, num_classes)


def etf_head(scale: Positive = 1.0, *, num_features: int, num_classes: int) -> nn.Linear:
    """Linear without bias whose rows are `scale` times a simplex ETF and stay so; only the features are trained."""
    head = nn.Linear(num_features, num_classes, bias=False).requires_grad_(False)
    head.weight.copy_(scale * simplex_etf(num_classes, num_features))
    return head
