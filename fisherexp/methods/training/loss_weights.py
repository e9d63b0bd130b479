"""Weights of the samples of a batch by their losses (Sow et al., ICLR 2025, arXiv 2502.06733).

    h_i = (2 ℓ_i - max ℓ - min ℓ) / (max ℓ - min ℓ),   w = softmax(f(h) / r)

so that h runs from -1, the smallest loss of the batch, to 1. Their δ, which multiplies h and divides it again in f, is
1 in all of their runs, and here.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# What is preferred: all but small losses, middling ones, small and large ones, large ones, none.
STRATEGIES: dict[str, Callable[[Tensor], Tensor]] = {
    "linupper": lambda h: (h + 1).clamp_max(1),
    "quadratic": lambda h: 1 - h.square(),
    "extremes": torch.abs,
    "upper": lambda h: (h + 1) / 2,
    "uniform": torch.zeros_like,
}
LEAST_RANGE = 1e-6  # of the losses of a batch, as in their code: equal losses have equal weights


def loss_weights(losses: Tensor, strategy: str, temperature: float) -> Tensor:
    """w (B,) of losses (B,), taken for constants; they add up to 1. strategy: of STRATEGIES. temperature: r."""
    losses = losses.detach()
    low, high = losses.min(), losses.max()
    relative = (2 * losses - high - low) / (high - low).clamp_min(LEAST_RANGE)
    return (STRATEGIES[strategy](relative) / temperature).softmax(0)
