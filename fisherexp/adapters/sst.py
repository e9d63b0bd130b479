"""SST: a weight kept as its singular decomposition, of which all values and some sampled vectors are trained.

Zhao et al., ICML 2025, arXiv 2405.15481. With K = min(m, n) and G = ∂L/∂W':

    W' = U diag(s) Vᵀ = W at the start
    ∂L/∂s_i = u_iᵀ G v_i for all i,   s ← max(s, 0)
    ∂L/∂u_i = G v_i, ∂L/∂v_i = Gᵀ u_i for r sampled i, enhanced: without the factor s_i;   u_i, v_i to unit length

Every `every` steps r other indices are drawn without replacement, p_i = ½ (1 / K + s_i / Σ s). After `draws` samples
the product is decomposed again. What an optimizer remembers of vectors that were exchanged, and of values after a
decomposition, is no more about them (`forget_resampled`). The code of the authors was not at hand; how often to draw
and to decompose is therefore our choice, and their warm-up after each draw is left out: moments begin anew, bias
correction and all.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fisherexp.adapters.adapter import Adapter
from fisherexp.adapters.singular import singular_triplets
from fisherexp.adapters.training import adapters


class SpectralProduct(torch.autograd.Function):
    """U diag(s) Vᵀ of U (m, K), s (K,), Vᵀ (K, n). Gradients of U and Vᵀ are as if every s_i were 1."""

    @staticmethod
    def forward(context: Any, left: Tensor, values: Tensor, right: Tensor) -> Tensor:
        context.save_for_backward(left, right)
        return left * values @ right

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, right = context.saved_tensors
        to_left = gradient @ right.T
        return to_left, (left * to_left).sum(0), left.T @ gradient


def probabilities(values: Tensor) -> Tensor:
    """p (K,) of singular values s ≥ 0: half of it even, half in proportion to s."""
    shares = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    p = 1 / len(values) + shares
    return p / p.sum()


class SST(Adapter):
    """weight: W (m, n), of which nothing is left but the start. rank: r. every: steps from one draw to the next. draws:
    samples from one decomposition to the next; None for ⌈K / r⌉, as many as it takes to draw every index once on
    average. enhanced: leave the factor s_i out of the gradients of vectors.

    Trains K + r (m + n) numbers at a time. The sampled vectors are parameters of their own, so that an optimizer moves
    no others. Raises ValueError for a rank outside 1 … K.
    """

    def __init__(
        self, weight: Tensor, rank: int, every: int = 20, draws: int | None = None, enhanced: bool = True
    ) -> None:
        super().__init__()
        left, values, right = singular_triplets(weight, slice(None), rank)
        self.every, self.enhanced = every, enhanced
        self.draws = math.ceil(len(values) / rank) if draws is None else draws
        self.register_buffer("left", left)
        self.register_buffer("right", right)
        self.values = nn.Parameter(values)
        self.register_buffer("sampled", torch.multinomial(probabilities(values), rank))
        self.active_left = nn.Parameter(left[:, self.sampled])
        self.active_right = nn.Parameter(right[self.sampled])
        self.exchanged: list[nn.Parameter] = []  # in the last step

    def vectors(self) -> tuple[Tensor, Tensor]:
        """U (m, K) and Vᵀ (K, n), differentiable in the sampled ones."""
        left = self.left.index_copy(1, self.sampled, self.active_left)
        return left, self.right.index_copy(0, self.sampled, self.active_right)

    def weight(self, weight: Tensor) -> Tensor:
        left, right = self.vectors()
        return SpectralProduct.apply(left, self.values, right) if self.enhanced else left * self.values @ right

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        self.values.clamp_(min=0)
        self.active_left /= self.active_left.norm(dim=0).clamp_min(torch.finfo(self.left.dtype).tiny)
        self.active_right /= self.active_right.norm(dim=1, keepdim=True).clamp_min(torch.finfo(self.left.dtype).tiny)
        self.exchanged = []
        if (step + 1) % self.every == 0:
            self.exchanged = [self.active_left, self.active_right]
            if (step + 1) % (self.every * self.draws) == 0:
                self.exchanged.append(self.values)
                self.decompose()
            self.draw()

    @torch.no_grad()
    def draw(self) -> None:
        """Sample other vectors. W' does not change."""
        left, right = self.vectors()
        self.left.copy_(left)
        self.right.copy_(right)
        self.sampled.copy_(torch.multinomial(probabilities(self.values), len(self.sampled)))
        self.active_left.copy_(self.left[:, self.sampled])
        self.active_right.copy_(self.right[self.sampled])

    @torch.no_grad()
    def decompose(self) -> None:
        """Make the vectors orthonormal again, the values sorted. W' does not change."""
        left, right = self.vectors()
        parts = singular_triplets(left * self.values @ right, slice(None))
        for mine, new in zip((self.left, self.values, self.right), parts, strict=True):
            mine.copy_(new)
        self.active_left.copy_(self.left[:, self.sampled])
        self.active_right.copy_(self.right[self.sampled])


def forget_resampled(optimizer: Optimizer, model: nn.Module) -> None:
    """After a step: drop what the optimizer remembers of parameters that became others in it."""
    for adapter in adapters(model):
        if isinstance(adapter, SST):
            for parameter in adapter.exchanged:
                optimizer.state.pop(parameter, None)
