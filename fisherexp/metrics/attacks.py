"""Projected gradient ascent on images (Madry et al., ICLR 2018, arXiv 1706.06083)."""

from collections.abc import Callable

import torch
from torch import Tensor


def pgd(
    objective: Callable[[Tensor], Tensor],
    images: Tensor,
    start: Tensor,
    radius: float,
    step: float,
    steps: int,
) -> Tensor:
    """Images (B, C, H, W) in [0, 1] with a large objective, no pixel further than `radius` from that of `images`.

    objective: (B, C, H, W) -> (B,), to be made large. start: images to begin from. step: how far each pixel moves in
    each of `steps` steps, along the sign of its gradient. The weights of a model get no gradient.
    """
    low, high = (images - radius).clamp_min(0), (images + radius).clamp_max(1)
    found = start.detach().clamp(low, high)
    for _ in range(steps):
        found.requires_grad_()
        (gradient,) = torch.autograd.grad(objective(found).sum(), [found])
        found = (found.detach() + step * gradient.sign()).clamp(low, high)
    return found.detach()


def uniform_start(images: Tensor, radius: float, generator: torch.Generator | None = None) -> Tensor:
    """Images moved by uniform draws from -radius … radius, made on the CPU. generator: the global one by default."""
    drawn = torch.rand(images.shape, generator=generator, dtype=images.dtype)
    return images + radius * (2 * drawn - 1).to(images.device)
