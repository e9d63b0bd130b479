"""Learned connections: a weight is there where its mask variable is positive.

    W' = W ∘ U(M),   U the unit step, with the gradient of the identity:  ∂ℓ/∂M = W ∘ ∂ℓ/∂W'

Tang et al., IEEE TNNLS 2023, arXiv 2201.05020. W is trained as it is, M by `mask_step`.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from fisherexp.adapters.adapter import Adapter


class UnitStep(torch.autograd.Function):
    """1 where positive, else 0; the gradient passes as it came."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor) -> Tensor:
        return (values > 0).to(values.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        return gradient


class Connectivity(Adapter):
    """weight: W (m, n). start: of all mask variables, which stay within -1 and 1."""

    def __init__(self, weight: Tensor, start: float) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.full_like(weight, start))

    def weight(self, weight: Tensor) -> Tensor:
        return weight * UnitStep.apply(self.mask)

    def connections(self) -> int:
        """How many weights are there."""
        return int((self.mask > 0).sum())

    @torch.no_grad()
    def step(self, lr: float, price: float, normalize: bool) -> None:
        """One step on the mask's gradient, which is forgotten; of a layer that was not called it is zero."""
        gradient = torch.zeros_like(self.mask) if self.mask.grad is None else self.mask.grad
        self.mask.copy_(mask_step(self.mask, gradient, lr, price, normalize))
        self.mask.grad = None


def mask_step(mask: Tensor, gradient: Tensor, lr: float, price: float, normalize: bool) -> Tensor:
    """M - lr (G + λ), within -1 and 1: descent on ℓ + λ · connections, whose gradient is λ for every variable.

    gradient: ∂ℓ/∂M (m, n). normalize: divide each row of it by its norm, before λ is added; a row of zeros stays.
    """
    if normalize:
        norm = gradient.norm(dim=1, keepdim=True)
        gradient = gradient / norm.where(norm > 0, 1.0)
    return (mask - lr * (gradient + price)).clamp(-1, 1)
