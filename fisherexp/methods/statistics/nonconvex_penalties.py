"""Sparse penalties that spare large coefficients, and the accelerated gradient that copes with them.

    min over β:  ‖y - Xβ‖² / 2n + Σ p(β_j),    p(β) = λ|β| + r(β),  r smooth and concave

    SCAD (a > 2):  r' = 0 up to λ,  (λ - |β|) s / (a - 1) up to aλ,  -λ s beyond        (Fan, Li 2001; s the sign)
    MCP (γ > 1):   r' = -β/γ up to γλ,  -λ s beyond                                      (Zhang 2010)

r joins the loss; soft-thresholding is left for λ|β|. Accelerated gradient for composite nonconvex problems (Ghadimi,
Lan 2016) with the steps of Yang's thesis and package nonconvexAG: L = max(λ_max(XᵀX/n), 1/(a-1) or 1/γ), step 0.99/L,
α_k = 2 / (1 + √(1 + 4/α²_{k-1})), λ_k = step/α_k, three sequences. Kai Yang: Contributions to Robust and Efficient
Methods for Analysis of High Dimensional Data, McGill, 2025; the thesis was not at hand. Where ours differs:
- It restarts where a step turns against the movement (O'Donoghue, Candès 2015). Restarts where the middle sequence
  slows down, as the package has them, came at every other step here and left nothing of the acceleration.
- Signs are those of the penalties: the refactored package has SCAD's middle branch and both of MCP's reversed.
- The answer is the aggregated sequence, which has exact zeros; theirs returns the middle one.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Penalty = Literal["lasso", "scad", "mcp"]


def value(coefficients: Tensor, strength: float, shape: float, penalty: Penalty) -> Tensor:
    """Σ p(β_j). strength: λ. shape: a of SCAD, γ of MCP."""
    size = coefficients.abs()
    if penalty == "lasso":
        return strength * size.sum()
    if penalty == "mcp":
        inner = strength * size - size.square() / (2 * shape)
        return torch.where(size <= shape * strength, inner, shape * strength**2 / 2).sum()
    middle = (2 * shape * strength * size - size.square() - strength**2) / (2 * (shape - 1))
    outer = torch.full_like(size, strength**2 * (shape + 1) / 2)
    return torch.where(size <= strength, strength * size, torch.where(size <= shape * strength, middle, outer)).sum()


def concave_slope(coefficients: Tensor, strength: float, shape: float, penalty: Penalty) -> Tensor:
    """r'(β_j): (d,)."""
    size, sign = coefficients.abs(), coefficients.sign()
    if penalty == "lasso":
        return torch.zeros_like(coefficients)
    if penalty == "mcp":
        return torch.where(size <= shape * strength, -coefficients / shape, -strength * sign)
    middle = (strength - size) * sign / (shape - 1)
    return torch.where(size <= strength, 0.0, torch.where(size <= shape * strength, middle, -strength * sign))


def soft_threshold(coefficients: Tensor, by: float) -> Tensor:
    """argmin_v ½ (v - β)² + by |v|, each."""
    return coefficients.sign() * (coefficients.abs() - by).clamp(min=0)


class State(NamedTuple):
    """Where the iteration stands. aggregated: the answer so far (d,). proximal: the sequence that runs ahead (d,).

    momentum: α of the next step. residual: of the stationarity at the last one."""

    aggregated: Tensor
    proximal: Tensor
    momentum: float = 1.0
    residual: float = float("inf")


def lipschitz(inputs: Tensor, shape: float, penalty: Penalty) -> float:
    """L of loss and concave part. inputs: (n, d)."""
    gram = inputs @ inputs.T if len(inputs) < inputs.shape[1] else inputs.T @ inputs
    concave = {"lasso": 0.0, "scad": 1 / (shape - 1), "mcp": 1 / shape}[penalty]
    return max(float(torch.linalg.eigvalsh(gram)[-1]) / len(inputs), concave)


def advanced(
    state: State,
    inputs: Tensor,
    outcomes: Tensor,
    strength: float,
    shape: float,
    penalty: Penalty,
    bound: float,
    accelerated: bool = True,
) -> State:
    """One iteration, on inputs (n, d) and outcomes (n,). bound: L. Without acceleration, a proximal gradient step."""
    step = 0.99 / bound
    alpha = state.momentum if accelerated else 1.0
    middle = alpha * state.proximal + (1 - alpha) * state.aggregated
    gradient = inputs.T @ (inputs @ middle - outcomes) / len(outcomes)
    gradient = gradient + concave_slope(middle, strength, shape, penalty)
    aggregated = soft_threshold(middle - step * gradient, step * strength)
    proximal = aggregated
    if accelerated:
        length = step / alpha
        proximal = soft_threshold(state.proximal - length * gradient, length * strength)
    residual = float((middle - aggregated).abs().max()) / step
    if accelerated and (middle - aggregated) @ (aggregated - state.aggregated) > 0:
        return State(aggregated, aggregated, 1.0, residual)
    return State(aggregated, proximal, 2 / (1 + (1 + 4 / alpha**2) ** 0.5), residual)


def largest_strength(inputs: Tensor, outcomes: Tensor) -> float:
    """The least λ at which all coefficients are zero."""
    return float((inputs.T @ outcomes).abs().max()) / len(outcomes)
