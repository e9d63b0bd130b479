"""DoRA: the length of each row of a weight is trained apart from its direction, which LoRA moves.

Liu et al., ICML 2024, arXiv 2402.09353:   W' = m ∘ (W + α / r · B A) / ‖W + α / r · B A‖,   norms of rows

m begins as the norms of W's rows. In the gradient the norms count as constants (section 4.3 of the paper).
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.adapters.lora import LoRA


class DoRA(LoRA):
    """Arguments as for LoRA. Trains r (m + n) + m numbers. A row of W that is zero has no direction: ValueError."""

    def __init__(self, weight: Tensor, rank: int, alpha: float | None = None, **options: Any) -> None:
        super().__init__(weight, rank, alpha, **options)
        norms = torch.linalg.vector_norm(self.weight_before_scaling(weight).detach(), dim=1)
        if not norms.all():
            raise ValueError(f"{int((norms == 0).sum())} of {len(norms)} rows of the weight are zero")
        self.magnitude = nn.Parameter(norms)

    def weight_before_scaling(self, weight: Tensor) -> Tensor:
        return super().weight(weight)

    def weight(self, weight: Tensor) -> Tensor:
        moved = self.weight_before_scaling(weight)
        return (self.magnitude / torch.linalg.vector_norm(moved.detach(), dim=1))[:, None] * moved

    def factors(self) -> None:
        return None  # rows have another length

    def scaled_factors(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, right = self.scale * self.up, self.down
        return self.magnitude / row_lengths(weight, left, right), left, right


@torch.no_grad()
def row_lengths(weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """(m,), norms of the rows of W + L R, which is not formed: ‖w‖² + 2 l R w + l R Rᵀ lᵀ for each.

    Rounding is relative to ‖w‖, so it shows where an update leaves next to nothing of a row.
    """
    cross = 2 * (weight @ right.T) + left @ (right @ right.T)
    squares = torch.linalg.vector_norm(weight, dim=1).square() + (left * cross).sum(dim=1)
    return squares.clamp(min=0).sqrt()
