"""SVFit: of the leading singular triplets of a weight the values are trained, the vectors stay.

arXiv 2409.05926, 2024:   W' = W + U_r diag(σ - s_r) V_rᵀ,   σ = s_r at the start

No code of the authors is known. r is the smallest rank with Σ_{i ≤ r} s_i² ≥ energy · Σ s_i²: the paper asks for "over
99 % of the information" without saying how it is counted. Values may become negative, which the paper does not rule
out.
"""

import torch
from torch import Tensor, nn

from fisherexp.adapters.adapter import Adapter
from fisherexp.adapters.singular import singular_triplets


def rank_of_energy(values: Tensor, energy: float) -> int:
    """The smallest r with Σ_{i ≤ r} s_i² ≥ energy · Σ s_i², of falling singular values s; at least 1, at most all."""
    sums = values.double().square().cumsum(0)
    return min(len(values), 1 + int((sums < energy * sums[-1]).sum()))


class SVFit(Adapter):
    """weight: W (m, n). rank: r; None for that of the `energy`, a share in (0, 1]. Trains r numbers.

    Raises ValueError for a rank above min(m, n).
    """

    def __init__(self, weight: Tensor, rank: int | None = None, energy: float = 0.99) -> None:
        super().__init__()
        rank = rank_of_energy(torch.linalg.svdvals(weight.double()), energy) if rank is None else rank
        left, values, right = singular_triplets(weight, slice(rank), rank)
        self.register_buffer("left", left)
        self.register_buffer("start", values)
        self.register_buffer("right", right)
        self.values = nn.Parameter(values.clone())

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.left * (self.values - self.start), self.right

    def weight(self, weight: Tensor) -> Tensor:
        left, right = self.factors()
        return weight + left @ right
