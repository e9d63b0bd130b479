"""SALT: the leading singular values of a weight are scaled and shifted, the block of the others gets a low-rank update.

Elsayed et al., 2025, arXiv 2503.16055. With W = U diag(s) Vᵀ, K = min(m, n) and k = max(1, ⌊ρ K⌋),

    W' = U relu(Σ') Vᵀ,   Σ' = blockdiag(diag(a ∘ s_{≤k} + b), diag(s_{>k}) + X Y),   a = 1, b = 0, Y = 0 at the start
    penalty γ (‖(a - 1) ∘ s_{≤k} + b‖ + ‖X Y‖_F)

X is uniform within √(6 / r), as in the authors' code. There Y is zero for linear layers only; here for all. The code's
ReLU is over the whole of Σ' (relu="all"), which forbids negative entries off the diagonal; "diag" is over the singular
values alone. What the decomposition leaves of W by rounding is kept: W' = W + U (relu(Σ') - diag(s)) Vᵀ.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from fisherexp.adapters.adapter import Adapter
from fisherexp.adapters.singular import singular_triplets


def length(tensor: Tensor) -> Tensor:
    """The norm of all entries, a scalar, whose gradient is zero at zero."""
    return torch.linalg.vector_norm(tensor)


class SALT(Adapter):
    """weight: W (m, n). share: ρ. rank: r, of X Y. relu: "diag", "all" or "none". penalty_weight: γ.

    Trains 2 k + 2 r (K - k) numbers. Raises ValueError for a rank below 1.
    """

    def __init__(
        self,
        weight: Tensor,
        rank: int,
        share: float = 0.1,
        relu: Literal["diag", "all", "none"] = "diag",
        penalty_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank={rank} must be at least 1")
        left, values, right = singular_triplets(weight, slice(None))
        for name, factor in (("left", left), ("values", values), ("right", right)):
            self.register_buffer(name, factor)
        count, top = len(values), max(1, math.floor(share * len(values)))
        self.relu, self.penalty_weight = relu, penalty_weight
        self.factor = nn.Parameter(weight.new_ones(top))
        self.shift = nn.Parameter(weight.new_zeros(top))
        self.tall = nn.Parameter(
            weight.new_empty(count - top, rank).uniform_(-math.sqrt(6 / rank), math.sqrt(6 / rank))
        )
        self.flat = nn.Parameter(weight.new_zeros(rank, count - top))

    def middle(self) -> Tensor:
        """relu(Σ') (K, K)."""
        top = len(self.factor)
        leading = torch.diag(self.factor * self.values[:top] + self.shift)
        middle = torch.block_diag(leading, torch.diag(self.values[top:]) + self.tall @ self.flat)
        if self.relu == "all":
            return middle.relu()
        negative = middle.diagonal().clamp(max=0) if self.relu == "diag" else torch.zeros_like(self.values)
        return middle - torch.diag(negative)

    def middle_diagonal(self) -> Tensor:
        """Σ'_ii (K,), before the ReLU."""
        top = len(self.factor)
        leading = self.factor * self.values[:top] + self.shift
        return torch.cat([leading, self.values[top:] + (self.tall * self.flat.T).sum(1)])

    @torch.no_grad()
    def negative(self) -> Tensor:
        """Where it is below zero."""
        return (self.middle_diagonal() < 0).nonzero().flatten()

    def factors(self) -> tuple[Tensor, Tensor]:
        """Of rank k + r unless the ReLU is over the whole block; singular values that fell below zero, and so are cut,
        add one each."""
        if self.relu == "all":
            return self.left @ (self.middle() - torch.diag(self.values)), self.right
        top = len(self.factor)
        moved = (self.factor - 1) * self.values[:top] + self.shift
        lefts = [self.left[:, :top] * moved, self.left[:, top:] @ self.tall]
        rights = [self.right[:top], self.flat @ self.right[top:]]
        if self.relu == "diag" and len(negative := self.negative()):
            middle = self.middle_diagonal()[negative]
            lefts.append(self.left[:, negative] * -middle)
            rights.append(self.right[negative])
        return torch.cat(lefts, dim=1), torch.cat(rights)

    def weight(self, weight: Tensor) -> Tensor:
        left, right = self.factors()
        return weight + left @ right

    def penalty(self) -> Tensor:
        if not self.penalty_weight:  # X Y is as large as the block
            return self.values.new_zeros(())
        moved = (self.factor - 1) * self.values[: len(self.factor)] + self.shift
        return self.penalty_weight * (length(moved) + length(self.tall @ self.flat))
