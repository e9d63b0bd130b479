"""SORSA: the leading singular triplets of a weight, trained apart, their vectors held orthonormal by a penalty.

Cao and Song, 2024, arXiv 2409.00055. With W = U diag(s) Vᵀ and c = α / r (1 where α is None),

    W' = (W - c U_r diag(s_r) V_rᵀ) + c P diag(λ) Q,   P, λ, Q = U_r, s_r, V_rᵀ at the start
    penalty γ (‖PᵀP - I‖_F + ‖QQᵀ - I‖_F)

As in the authors' code, s is not divided by c (PiSSA's is): with α the frozen part is W without c times the triplets.
They store it in the place of W; here the triplets are buffers and W stays.
"""

import torch
from torch import Tensor, nn

from fisherexp.adapters.adapter import Adapter
from fisherexp.adapters.lora import scaling
from fisherexp.adapters.orthogonality import orthogonality
from fisherexp.adapters.singular import singular_triplets


class SORSA(Adapter):
    """weight: W (m, n). rank: r. alpha: α, None for a scale of 1; W' = W at the start for every α.

    penalty_weight: γ. Trains r (m + n + 1) numbers; the update has rank 2 r at most. Raises ValueError for a rank above
    min(m, n).
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float | None = None, penalty_weight: float = 0.0) -> None:
        super().__init__()
        self.scale, self.penalty_weight = scaling(alpha, rank), penalty_weight
        left, values, right = singular_triplets(weight, slice(rank), rank)
        for name, factor in (("left", left), ("values", values), ("right", right)):
            self.register_buffer(f"{name}_start", factor)
            setattr(self, name, nn.Parameter(factor.clone()))

    def factors(self) -> tuple[Tensor, Tensor]:
        now, start = self.left * self.values, self.left_start * self.values_start
        return self.scale * torch.cat([now, -start], dim=1), torch.cat([self.right, self.right_start])

    def weight(self, weight: Tensor) -> Tensor:
        left, right = self.factors()
        return weight + left @ right

    def penalty(self) -> Tensor:
        return self.penalty_weight * (orthogonality(self.left) + orthogonality(self.right.T))

    @torch.no_grad()
    def drift(self) -> tuple[Tensor, Tensor]:
        """(r,) and (r,), of triplets p, λ, q that began with the vectors u, v: how far c λ has gone, and
        1 - |cos(p, u) cos(q, v)|, whatever the lengths of p and q."""
        to_left = torch.cosine_similarity(self.left, self.left_start, dim=0)
        to_right = torch.cosine_similarity(self.right, self.right_start, dim=1)
        return (self.scale * (self.values - self.values_start)).abs(), 1 - (to_left * to_right).abs()
