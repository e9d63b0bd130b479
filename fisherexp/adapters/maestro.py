"""LoD, the decomposition of Maestro: factors of full rank whose components are ordered by being cut off at random.

Horváth, Laskaridis, Rajput, Wang, ICML 2024, arXiv 2308.14929. With K = min(m, n):

    W' = U[:, :k] V[:k],   U (m, K), V (K, n) = U √S, √S Vᵀ of the W a layer begins with;   k drawn by whoever trains it
    penalty λ Σ_k (‖U[:, k:]‖_F + ‖V[k:]‖_F),   k = 0 … K - 1: a group lasso in which later components weigh more
    importance_k = ‖U[:, k:]‖_F ‖V[k:]‖_F:   components from the first below a threshold on are left out

Penalty and importance are of all K components, left out or not, as in the authors' code. There a layer may lose all of
them; here the first stays.
"""

import torch
from torch import Tensor, nn

from fisherexp.adapters.adapter import Adapter
from fisherexp.adapters.singular import singular_triplets


def tail_norms(rows: Tensor) -> Tensor:
    """(K,) of a matrix (K, d): ‖rows[k:]‖_F for each k. Its gradient at a tail of zeros is zero."""
    squares = rows.square().sum(1).flip(0).cumsum(0).flip(0)
    return squares.clamp_min(torch.finfo(rows.dtype).tiny).sqrt()


class Maestro(Adapter):
    """weight: W (m, n), of which nothing is left but the start. penalty_weight: λ.

    width: k of the next passes; None for all components that are kept. Trains `kept` · (m + n) numbers.
    """

    def __init__(self, weight: Tensor, penalty_weight: float = 0.0) -> None:
        super().__init__()
        left, values, right = singular_triplets(weight, slice(None))
        self.penalty_weight = penalty_weight
        self.left = nn.Parameter(left * values.sqrt())
        self.right = nn.Parameter(values.sqrt()[:, None] * right)
        self.register_buffer("kept", torch.tensor(len(values)))
        self.width: int | None = None

    def weight(self, weight: Tensor) -> Tensor:
        width = int(self.kept) if self.width is None else self.width
        return self.left[:, :width] @ self.right[:width]

    def penalty(self) -> Tensor:
        return self.penalty_weight * (tail_norms(self.left.T) + tail_norms(self.right)).sum()

    @torch.no_grad()
    def importance(self) -> Tensor:
        """(K,), falling."""
        return tail_norms(self.left.T) * tail_norms(self.right)

    def shrink(self, threshold: float) -> bool:
        """Keep only components of at least that importance, of those that are kept; whether any went."""
        before, important = int(self.kept), int((self.importance() >= threshold).sum())
        self.kept.fill_(max(1, min(before, important)))
        return int(self.kept) < before

    def num_trainable(self) -> int:
        return int(self.kept) * (self.left.shape[0] + self.right.shape[1])
