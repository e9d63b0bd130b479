"""A smooth attack: a log-barrier in the place of the box, so that the worst image is a smooth function of the weights.

    x* = argmin_x  -ℓ(x) - c Σ_j [ log(high_j - x_j) + log(x_j - low_j) ]

Where ℓ is linear with gradient a, and the box has the middle m and half the width h, each s = x_j - m_j is the root of
a s² + 2 c s - a h² = 0 within the box. A step here goes part of the way to that root at the gradient at hand, and stays
inside by itself; a fixed point of it is stationary.

How the loss at x* changes with the weights follows. With the Hessian in x taken for that of the barrier, which is
diagonal, d ℓ(θ, x*(θ)) = ∂_θ ℓ + ∂_θ ⟨∂_x ℓ, v⟩ where v = H⁻¹ ∂_x ℓ is constant.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Losses = Callable[[Tensor], Tensor]  # of images (B, …) -> (B,)


class Box(NamedTuple):
    """low, high: of every pixel, tensors of the shape of the images."""

    low: Tensor
    high: Tensor

    @property
    def middle(self) -> Tensor:
        return (self.low + self.high) / 2

    @property
    def half(self) -> Tensor:
        return (self.high - self.low) / 2


def box_around(images: Tensor, radius: float) -> Box:
    """What an attacker may choose from: images in [0, 1] no pixel of which is further than `radius` from `images`."""
    return Box((images - radius).clamp_min(0), (images + radius).clamp_max(1))


def linear_optimum(gradient: Tensor, box: Box, barrier: float) -> Tensor:
    """The worst image for a loss with this gradient everywhere; strictly inside the box."""
    pull = gradient * box.half
    return box.middle + box.half * pull / (barrier + (barrier**2 + pull.square()).sqrt())


def barrier_attack(losses: Losses, images: Tensor, box: Box, barrier: float, steps: int, part: float) -> Tensor:
    """Worse images, constant: `steps` steps from `images`, each `part` of the way to the linear optimum."""
    for _ in range(steps):
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(losses(images).sum(), [images])
        images = images.detach().lerp(linear_optimum(gradient, box, barrier), part)
    return images.detach()


def barrier_curvature(images: Tensor, box: Box, barrier: float) -> Tensor:
    """Second derivatives of the barrier, pixel by pixel."""
    return barrier * ((box.high - images) ** -2 + (images - box.low) ** -2)


def with_implicit_gradient(losses: Losses, worst: Tensor, box: Box, barrier: float) -> Tensor:
    """The losses (B,) at the worst images, whose gradient in the weights counts how these follow the weights, too."""
    worst = worst.detach().requires_grad_()
    values = losses(worst)
    (slope,) = torch.autograd.grad(values.sum(), [worst], create_graph=True)
    direction = (slope / barrier_curvature(worst, box, barrier)).detach()
    follows = (slope * direction).flatten(1).sum(1)
    return values + follows - follows.detach()
