"""Sparse penalties that spare large coefficients, each a lasso and a smooth concave part.

    p(β) = λ|β| + r(β)

SCAD (a > 2):  r' = 0 up to λ,  (λ - |β|) s / (a - 1) up to aλ,  -λ s beyond        (Fan, Li 2001; s the sign)
MCP (γ > 1):   r' = -β/γ up to γλ,  -λ s beyond                                      (Zhang 2010)

r joins the loss (sparse_fit.py); soft-thresholding is left for λ|β|. Signs are those of the penalties: the refactored
package nonconvexAG has SCAD's middle branch and both of MCP's reversed. λ is one number, or one for each coefficient:
zero leaves a coefficient, as that of the intercept, without a penalty.
"""

from typing import Literal

import torch
from torch import Tensor

Penalty = Literal["lasso", "scad", "mcp"]


def value(coefficients: Tensor, strength: float | Tensor, shape: float, penalty: Penalty) -> Tensor:
    """Σ p(β_j). strength: λ. shape: a of SCAD, γ of MCP."""
    size, strength = coefficients.abs(), torch.as_tensor(strength, dtype=coefficients.dtype)
    if penalty == "lasso":
        return (strength * size).sum()
    if penalty == "mcp":
        inner = strength * size - size.square() / (2 * shape)
        return torch.where(size <= shape * strength, inner, shape * strength**2 / 2).sum()
    middle = (2 * shape * strength * size - size.square() - strength**2) / (2 * (shape - 1))
    outer = strength**2 * (shape + 1) / 2
    return torch.where(size <= strength, strength * size, torch.where(size <= shape * strength, middle, outer)).sum()


def concave_slope(coefficients: Tensor, strength: float | Tensor, shape: float, penalty: Penalty) -> Tensor:
    """r'(β_j): (d,)."""
    size, sign = coefficients.abs(), coefficients.sign()
    if penalty == "lasso":
        return torch.zeros_like(coefficients)
    if penalty == "mcp":
        return torch.where(size <= shape * strength, -coefficients / shape, -strength * sign)
    middle = (strength - size) * sign / (shape - 1)
    return torch.where(size <= strength, 0.0, torch.where(size <= shape * strength, middle, -strength * sign))


def soft_threshold(coefficients: Tensor, by: float | Tensor) -> Tensor:
    """argmin_v ½ (v - β)² + by |v|, each."""
    return coefficients.sign() * (coefficients.abs() - by).clamp(min=0)
