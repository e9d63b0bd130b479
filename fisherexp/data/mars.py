"""Friedman's two regression problems on the unit cube, and inputs at a chosen distance from others.

Friedman, Multivariate Adaptive Regression Splines (1991); constants of Curth, Jeffares, van der Schaar (arXiv
2402.01502), whose code has (x₃ - 0.05)² in the second where Friedman has (x₃ - 0.5)².
"""

import math

import torch
from torch import Tensor


def uniform_inputs(count: int, generator: torch.Generator, features: int = 5) -> Tensor:
    """float64 (count, features), uniform in [0, 1]; the outcomes depend on the first five."""
    return torch.rand(count, features, generator=generator, dtype=torch.float64)


def mars_add(inputs: Tensor) -> Tensor:
    """0.1 exp(4 x₁) + 4 / (1 + exp(-20 (x₂ - ½))) + 3 x₃ + 2 x₄ + x₅ without noise: (N, ≥ 5) to (N,)."""
    x = inputs.T
    return 0.1 * (4 * x[0]).exp() + 4 * (20 * (x[1] - 0.5)).sigmoid() + 3 * x[2] + 2 * x[3] + x[4]


def mars_mult(inputs: Tensor, center: float = 0.05) -> Tensor:
    """10 sin(π x₁ x₂) + 20 (x₃ - center)² + 10 x₄ + 5 x₅ without noise: (N, ≥ 5) to (N,)."""
    x = inputs.T
    return 10 * (math.pi * x[0] * x[1]).sin() + 20 * (x[2] - center).square() + 10 * x[3] + 5 * x[4]


def noisy(outcomes: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Outcomes plus Gaussian noise of standard deviation sigma."""
    return outcomes + sigma * torch.randn(outcomes.shape, generator=generator, dtype=outcomes.dtype)


def offset_inputs(inputs: Tensor, offset: float, generator: torch.Generator) -> Tensor:
    """Every coordinate moved by a uniform draw from [-offset, offset]: test points that resemble the training's."""
    return inputs + offset * (2 * torch.rand(inputs.shape, generator=generator, dtype=inputs.dtype) - 1)
