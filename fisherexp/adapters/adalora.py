"""AdaLoRA: singular triplets beside a weight, of which the layers of a model share a budget that falls.

Zhang et al., ICLR 2023, arXiv 2303.10512. With P (m, r), Q (r, n) normal of standard deviation 0.02 and λ = 0:

    W' = W + α / r · P diag(λ) Q,   penalty γ (‖PᵀP - I‖_F + ‖QQᵀ - I‖_F)
    I = |w ∂L/∂w|,   Ī ← β₁ Ī + (1 - β₁) I,   Ū ← β₂ Ū + (1 - β₂) |I - Ī|,   s(w) = Ī Ū         after each step
    S_i = s(λ_i) + mean_j s(P_ji) + mean_j s(Q_ij):   the b(t) largest of all layers keep their λ, the others lose it
    b(t) = b_T + (b_0 - b_T) (1 - (t - t_i) / (T - t_i - t_f))³ between t_i and T - t_f, b_0 before, b_T after

Where paper and code differ this is the code: norms are not squared, r in α / r is the first rank, but for the 1e-5 that
the code adds to it. Vectors stay, so that a triplet can come back until T - t_f; then the pattern is fixed.
"""

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from fisherexp.adapters.adapter import Adapter
from fisherexp.adapters.lora import scaling
from fisherexp.adapters.orthogonality import orthogonality


def budget(step: int, total: int, first: int, last: int, initial: int, final: int) -> int:
    """b(t), from `first` to `last` triplets: constant up to step `initial` and in the last `final` of `total` steps."""
    if step <= initial:
        return first
    if step >= total - final:
        return last
    left = 1 - (step - initial) / (total - final - initial)
    return int(last + (first - last) * left**3)


class AdaLoRA(Adapter):
    """weight: W (m, n). rank: r at the start. target: mean rank of all layers at the end. alpha: α, None for a scale of
    1. penalty_weight: γ. initial, final: shares of all steps, t_i / T and t_f / T. every: steps from one allocation to
    the next. beta1, beta2: β₁, β₂.

    Trains r (m + n + 1) numbers, of which the pruned triplets are no part of the result. Everything else of the
    allocation is in buffers. Raises ValueError for a target above the rank, or initial + final of 1 or more.
    """

    def __init__(
        self,
        weight: Tensor,
        rank: int,
        target: int,
        alpha: float | None = None,
        *,
        penalty_weight: float = 0.5,
        initial: float = 0.1,
        final: float = 0.3,
        every: int = 1,
        beta1: float = 0.85,
        beta2: float = 0.85,
    ) -> None:
        super().__init__()
        if not 1 <= target <= rank:
            raise ValueError(f"target={target} is not within 1 … {rank}, the rank at the start")
        if initial + final >= 1:
            raise ValueError(f"initial={initial} and final={final} leave no steps in between: the sum must be below 1")
        rows, columns = weight.shape
        self.scale, self.target, self.penalty_weight = scaling(alpha, rank), target, penalty_weight
        self.initial, self.final, self.every, self.betas = initial, final, every, (beta1, beta2)
        self.left = nn.Parameter(0.02 * torch.randn(rows, rank).to(weight))
        self.values = nn.Parameter(weight.new_zeros(rank))
        self.right = nn.Parameter(0.02 * torch.randn(rank, columns).to(weight))
        for name, parameter in list(self.named_parameters()):
            self.register_buffer(f"{name}_sensitivity", torch.zeros_like(parameter))
            self.register_buffer(f"{name}_uncertainty", torch.zeros_like(parameter))
        self.register_buffer("kept", torch.ones(rank, dtype=torch.bool))

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.scale * self.left * self.values, self.right

    def weight(self, weight: Tensor) -> Tensor:
        left, right = self.factors()
        return weight + left @ right

    def penalty(self) -> Tensor:
        return self.penalty_weight * (orthogonality(self.left) + orthogonality(self.right.T))

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        if step >= total - round(self.final * total):
            return
        beta1, beta2 = self.betas
        for name, parameter in self.named_parameters():
            now = (parameter * parameter.grad).abs()
            sensitivity = getattr(self, f"{name}_sensitivity").lerp_(now, 1 - beta1)
            getattr(self, f"{name}_uncertainty").lerp_((now - sensitivity).abs(), 1 - beta2)

    def scores(self) -> Tensor:
        """S (r,), of each triplet."""
        left, values, right = (
            getattr(self, f"{name}_sensitivity") * getattr(self, f"{name}_uncertainty")
            for name in ("left", "values", "right")
        )
        return values + left.mean(dim=0) + right.mean(dim=1)

    @classmethod
    @torch.no_grad()
    def after_step_across(cls, adapters: Sequence[Self], step: int, total: int) -> None:
        one = adapters[0]
        initial, final = round(one.initial * total), round(one.final * total)
        if step <= total - final:
            first, last = sum(len(a.values) for a in adapters), sum(a.target for a in adapters)
            if step <= initial or (step < total - final and step % one.every):
                return
            pruned = first - budget(step, total, first, last, initial, final)
            # All at or below the last that must go, as in the authors' code: ties go together.
            scores = [a.scores() for a in adapters]
            bound = torch.cat(scores).kthvalue(pruned).values if pruned else -math.inf
            for adapter, score in zip(adapters, scores, strict=True):
                adapter.kept.copy_(score > bound)
        for adapter in adapters:
            adapter.values.masked_fill_(~adapter.kept, 0)
