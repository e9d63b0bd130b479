"""PST: weights pruned in fine-tuning by scores of which what the data say has a low rank, as has the weights' update.

Li et al., IJCAI 2022, arXiv 2205.11005. U (m, r), A (m, q) standard normal, V, B, R (m), C (n) zero at the start:

    W' = M ∘ W̃,   W̃ = W + β U V,   S = |W̃| + α₁ A B + α₂ (R 1ᵀ + 1 Cᵀ),   M = 0 at the ⌊v m n⌋ smallest S
    v_t = 0 for the first steps, v (1 - (1 - t')³) from then on, v for the last ones;   ∂L/∂S = ∂L/∂M as it is

The first term of S is free of data, the others learn what the gradient of M says. As in the authors' code the sparsity
is set after each step from the number of steps done, so that the first pass is dense. The mask by |W| that stays as it
is, the baseline, has α₁ = α₂ = 0 and |W| in the place of |W̃| (dynamic=False).
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.adapters.adapter import Adapter


def sparsity_at(step: int, total: int, final: float, initial_share: float, final_share: float) -> float:
    """v_t after `step` of `total` steps: 0 up to `initial_share` of them, `final` in the last `final_share`."""
    first, last = initial_share * total, (1 - final_share) * total
    if step <= first:
        return 0.0
    if step > last:
        return final
    return final * (1 - (1 - (step - first) / (last - first)) ** 3)


class Mask(torch.autograd.Function):
    """1 but for 0 at the `count` smallest scores; the scores' gradient is that of the mask."""

    @staticmethod
    def forward(context: Any, scores: Tensor, count: int) -> Tensor:
        mask = scores.new_ones(scores.numel())
        mask[scores.flatten().argsort(stable=True)[:count]] = 0
        return mask.view(scores.shape)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class PST(Adapter):
    """weight: W (m, n). sparsity: v, a share. rank, score_rank: r, q. product_weight, sum_weight: α₁, α₂; 0 and 0 leave
    the magnitude alone. scale: β. initial, final: shares of all steps before the sparsity rises and at its end.
    dynamic: whether the magnitude is that of the moving weights, |W̃|; if not, |W|.

    Trains (r + q) (m + n) + m + n numbers. Raises ValueError for initial + final of 1 or more.
    """

    def __init__(
        self,
        weight: Tensor,
        sparsity: float = 0.9,
        rank: int = 8,
        score_rank: int = 8,
        *,
        product_weight: float = 1.0,
        sum_weight: float = 1.0,
        scale: float = 1.0,
        initial: float = 0.1,
        final: float = 0.3,
        dynamic: bool = True,
    ) -> None:
        super().__init__()
        if initial + final >= 1:
            raise ValueError(f"initial={initial} and final={final} leave no steps in between: the sum must be below 1")
        rows, columns = weight.shape
        self.sparsity, self.initial, self.final = sparsity, initial, final
        self.product_weight, self.sum_weight, self.scale = product_weight, sum_weight, scale
        self.dynamic = dynamic
        self.up = nn.Parameter(torch.randn(rows, rank).to(weight))
        self.down = nn.Parameter(weight.new_zeros(rank, columns))
        self.score_up = nn.Parameter(torch.randn(rows, score_rank).to(weight))
        self.score_down = nn.Parameter(weight.new_zeros(score_rank, columns))
        self.score_rows = nn.Parameter(weight.new_zeros(rows, 1))
        self.score_columns = nn.Parameter(weight.new_zeros(columns))
        self.register_buffer("pruned", torch.tensor(0))

    def updated(self, weight: Tensor) -> Tensor:
        """W̃ (m, n)."""
        return weight + self.scale * self.up @ self.down

    def scores(self, weight: Tensor) -> Tensor:
        """S (m, n)."""
        product, sums = self.score_up @ self.score_down, self.score_rows + self.score_columns
        size = (self.updated(weight) if self.dynamic else weight).abs()
        return size + self.product_weight * product + self.sum_weight * sums

    def weight(self, weight: Tensor) -> Tensor:
        return Mask.apply(self.scores(weight), int(self.pruned)) * self.updated(weight)

    def after_step(self, step: int, total: int) -> None:
        share = sparsity_at(step + 1, total, self.sparsity, self.initial, self.final)
        self.pruned.fill_(int(share * len(self.up) * self.down.shape[1]))
