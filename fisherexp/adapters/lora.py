"""LoRA and rsLoRA: a product of two thin matrices added to a frozen weight.

Hu et al., ICLR 2022, arXiv 2106.09685:             W' = W + α / r · B A,   B (m, r) = 0, A (r, n) random at the start
rsLoRA: Kalajdzievski 2023, arXiv 2312.03732:       α / √r in the place of α / r

`up` is B and `down` A. A is Kaiming uniform as in the authors' code, where the paper has a Gaussian.
"""

import math
from typing import Literal

from torch import Tensor, nn

from fisherexp.adapters.adapter import Adapter

Init = Literal["kaiming", "gaussian", "lookup", "zeros"]


def scaling(alpha: float | None, rank: int, rank_stabilized: bool = False) -> float:
    """α / r, or α / √r; 1 where α is None."""
    if alpha is None:
        return 1.0
    return alpha / (math.sqrt(rank) if rank_stabilized else rank)


class LoRA(Adapter):
    """weight: W (m, n). rank: r. alpha: α, None for an update that is not scaled. rank_stabilized: rsLoRA.

    init: "kaiming"; "gaussian", A of standard deviation 1 / r; "lookup", A = 0 and B standard normal, which peft has
    for embeddings (A of Kaiming uniform shrinks with the number of tokens); "zeros", both.
    Trains r (m + n) numbers. Raises ValueError for a rank below 1.
    """

    def __init__(
        self,
        weight: Tensor,
        rank: int,
        alpha: float | None = None,
        *,
        rank_stabilized: bool = False,
        init: Init = "kaiming",
    ) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank={rank} must be at least 1")
        rows, columns = weight.shape
        self.scale, self.rank_stabilized = scaling(alpha, rank, rank_stabilized), rank_stabilized
        self.down = nn.Parameter(weight.new_zeros(rank, columns))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        if init == "kaiming":
            nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        elif init == "gaussian":
            nn.init.normal_(self.down, std=1 / rank)
        elif init == "lookup":
            nn.init.normal_(self.up)

    def update(self) -> Tensor:
        """W' - W, (m, n)."""
        return self.scale * self.up @ self.down

    def weight(self, weight: Tensor) -> Tensor:
        return weight + self.update()

    def factors(self) -> tuple[Tensor, Tensor] | None:
        return self.scale * self.up, self.down
