"""PiSSA: LoRA that begins with the leading part of the weight, which is taken out of what is frozen.

Meng et al., NeurIPS 2024, arXiv 2404.02948. With W = U diag(s) Vᵀ and c = α / r,

    W' = (W - c B_0 A_0) + c B A,   B_0 = U_r diag(√(s_r / c)),   A_0 = diag(√(s_r / c)) V_rᵀ,   B, A from B_0, A_0

The authors store W - c B_0 A_0 in the place of W. Here B_0 and A_0 are buffers and W stays what it was, for the same
W': a saved adapter then fits the original model, and no decomposition is ever repeated, whose signs might differ.
"""

import torch
from torch import Tensor, nn

from fisherexp.adapters.lora import LoRA


def singular_factors(weight: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """B (m, r) and A (r, n) with B A the `part` of W's singular components (largest first), √s in both.

    Computed in float64, returned in W's type.
    """
    u, s, vt = torch.linalg.svd(weight.double(), full_matrices=False)
    roots = s[part].sqrt()
    return (u[:, part] * roots).to(weight), (roots[:, None] * vt[part]).to(weight)


class ResidualLoRA(LoRA):
    """LoRA that begins with given factors, whose product is taken out of what is frozen: W' = W + c (B A - B_0 A_0).

    up: B_0 (m, r). down: A_0 (r, n). Both before they are divided by √c. Others as for LoRA.
    """

    def __init__(
        self,
        weight: Tensor,
        up: Tensor,
        down: Tensor,
        alpha: float | None = None,
        *,
        rank_stabilized: bool = False,
    ) -> None:
        super().__init__(weight, len(down), alpha, rank_stabilized=rank_stabilized, init="zeros")
        for name, factor in (("up", up), ("down", down)):
            factor = factor / self.scale**0.5
            self.register_buffer(f"{name}_start", factor)
            setattr(self, name, nn.Parameter(factor.clone()))

    def update(self) -> Tensor:
        return self.scale * (self.up @ self.down - self.up_start @ self.down_start)

    def factors(self) -> tuple[Tensor, Tensor] | None:
        return self.scale * torch.cat([self.up, -self.up_start], dim=1), torch.cat([self.down, self.down_start])


class PiSSA(ResidualLoRA):
    """Arguments as for LoRA, without init. Trains r (m + n) numbers; the update has rank 2 r at most.

    Raises ValueError for a rank above min(m, n).
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float | None = None, *, rank_stabilized: bool = False) -> None:
        check_rank(weight, rank)
        super().__init__(weight, *singular_factors(weight, self.part(rank)), alpha, rank_stabilized=rank_stabilized)

    @staticmethod
    def part(rank: int) -> slice:
        """Which singular components are adapted."""
        return slice(rank)


def check_rank(weight: Tensor, rank: int) -> None:
    """Raise ValueError for a rank that a weight (m, n) cannot have."""
    if rank < 1:
        raise ValueError(f"rank={rank} must be at least 1")
    if rank > min(weight.shape):
        raise ValueError(f"rank={rank} is above {min(weight.shape)}, that of a weight {tuple(weight.shape)}")
