"""The gradient of g(x̂(θ)) from an inexact lower level, and a bound on its error.

    H q = ∇g(x),    z = -Jᵀ q    with H = ∂²h/∂x², J = ∂²h/∂x∂θ at x, ‖x - x̂‖ ≤ ε and ‖H q - ∇g‖ ≤ δ

    ‖z - ∇f(θ)‖ ≤ ω = ((L_g / μ + L_{H⁻¹} ‖∇g‖) ‖J‖ + L_J ‖∇g‖ / μ) ε + ‖J‖ δ / μ + L_J L_g ε² / μ

Salehi, Mukherjee, Roberts, Ehrhardt, arXiv 2308.10098, with their constants (problems/bilevel.py) instead of estimates.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fisherexp.problems.bilevel import Bilevel

MOST = 20_000  # iterations of one linear solve


class Hypergradient(NamedTuple):
    """z, the bound ω on its error (inf where its constants do not reach to ε), and products with H that it took."""

    z: Tensor
    bound: float
    products: int


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], right: Tensor, residual: float, start: Tensor
) -> tuple[Tensor, int]:
    """q with ‖product(q) - right‖ ≤ residual, and how many products it took; zero for a right-hand side of zero.

    Raises ArithmeticError, in one line, where rounding keeps it from that.
    """
    if not right.any():
        return torch.zeros_like(right), 0
    q, r = start, right - product(start)
    direction, squared, products = r, (r * r).sum(), 1
    while float(squared) > residual**2:
        if products >= MOST:
            raise ArithmeticError(f"the linear system is not solved to {residual:.1e} after {MOST} products")
        image = product(direction)
        length = squared / (direction * image).sum()
        q, r = q + length * direction, r - length * image
        before, squared = squared, (r * r).sum()
        direction, products = r + squared / before * direction, products + 1
    return q, products


def hypergradient(
    problem: Bilevel, x: Tensor, theta: Tensor, epsilon: float, delta: float, start: Tensor
) -> tuple[Hypergradient, Tensor]:
    """At x within epsilon of x̂(θ); and q, from which the next linear solve may start."""
    x = x.detach().requires_grad_()
    theta = theta.detach().requires_grad_()
    (right,) = torch.autograd.grad(problem.upper(x), x)
    (slope,) = torch.autograd.grad(problem.lower(x, theta), x, create_graph=True)

    def product(direction: Tensor) -> Tensor:
        return torch.autograd.grad(slope, x, direction, retain_graph=True)[0]

    q, products = conjugate_gradients(product, right, delta, start)
    (z,) = torch.autograd.grad(slope, theta, -q)
    known, steep = problem.constants(x, theta), float(right.norm())
    by_lower = problem.upper_smoothness / known.mu + known.inverse_slope * steep
    bound = (by_lower * known.jacobian + known.jacobian_slope * steep / known.mu) * epsilon
    bound += known.jacobian * delta / known.mu
    bound += known.jacobian_slope * problem.upper_smoothness * epsilon**2 / known.mu
    return Hypergradient(z, bound if epsilon <= known.reach else math.inf, products), q


def upper_bounds(problem: Bilevel, x: Tensor, epsilon: float) -> tuple[float, float]:
    """Between what g(x̂) lies, by its value at x within epsilon of x̂: g ∓ (‖∇g‖ ε + L_g ε² / 2)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = problem.upper(x)
        (slope,) = torch.autograd.grad(value, x)
    spread = float(slope.norm()) * epsilon + problem.upper_smoothness * epsilon**2 / 2
    return float(value.detach()) - spread, float(value.detach()) + spread
