"""A smooth attack: a log-barrier in the place of the box, so that the best change is a smooth function of the weights.

    δ* = argmin_δ  -ℓ(x + δ) - c Σ_j [ log(ε - δ_j) + log(ε + δ_j) ]

Where ℓ is linear with gradient a, each δ_j is the root of a δ² + 2 c δ - a ε² = 0 within the box. A step here goes part
of the way to that root at the gradient at hand, and stays inside by itself; a fixed point of it is stationary.

How the loss at δ* changes with the weights follows. With the Hessian in δ taken for that of the barrier, which is
diagonal, d ℓ(θ, δ*(θ)) = ∂_θ ℓ + ∂_θ ⟨∂_δ ℓ, v⟩ where v = H⁻¹ ∂_δ ℓ is constant.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Losses = Callable[[Tensor], Tensor]  # of changed images (B, …) -> (B,)


def linear_optimum(gradient: Tensor, radius: float, barrier: float) -> Tensor:
    """The best change of each pixel for a loss with this gradient everywhere; strictly inside the box."""
    pull = gradient * radius
    return radius * pull / (barrier + (barrier**2 + pull.square()).sqrt())


def barrier_attack(losses: Losses, inputs: Tensor, radius: float, barrier: float, steps: int, part: float) -> Tensor:
    """δ (B, …), constant: `steps` steps from zero, each `part` of the way to the linear optimum."""
    change = torch.zeros_like(inputs)
    for _ in range(steps):
        change = change.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(losses(inputs + change).sum(), [change])
        change = change.detach().lerp(linear_optimum(gradient, radius, barrier), part)
    return change.detach()


def barrier_curvature(change: Tensor, radius: float, barrier: float) -> Tensor:
    """Second derivatives of the barrier at δ, pixel by pixel."""
    return barrier * ((radius - change) ** -2 + (radius + change) ** -2)


def with_implicit_gradient(losses: Losses, inputs: Tensor, change: Tensor, radius: float, barrier: float) -> Tensor:
    """The losses (B,) at inputs + δ, whose gradient in the weights counts how δ follows them as well."""
    change = change.detach().requires_grad_()
    values = losses(inputs + change)
    (slope,) = torch.autograd.grad(values.sum(), [change], create_graph=True)
    direction = (slope / barrier_curvature(change, radius, barrier)).detach()
    follows = (slope * direction).flatten(1).sum(1)
    return values + follows - follows.detach()
