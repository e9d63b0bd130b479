"""MiSS and Bone ("bat"): one small matrix, zero at the start, that all shards of a weight share.

Kang and Yin, arXiv 2409.15371 (first called Bone, then DiSHA):
    MiSS:   W' = W + [Dᵀ Dᵀ … Dᵀ],                D (r, m), repeated along the n inputs: W'[:, j] = W[:, j] + D[j mod r]
    Bone:   W'_ij = W_ij + W_ij B_i + B_i,        blocks W_ij (r, r), one B_i (r, r) for each row of blocks

The repositories hold training scripts only; the layers are peft's `MissConfig`, with init_weights True, "mini" and
"bat".
"""

import torch
from torch import Tensor, nn

from fisherexp.adapters.adapter import Adapter


class MiSS(Adapter):
    """weight: W (m, n). rank: r. tile: D has as many columns, which are repeated along the m outputs (peft's "mini").

    Trains r m numbers, or r times tile. Raises ValueError for a rank above n, or a tile that does not divide m.
    """

    def __init__(self, weight: Tensor, rank: int, tile: int | None = None) -> None:
        super().__init__()
        rows, columns = weight.shape
        if not 1 <= rank <= columns:
            raise ValueError(f"rank={rank} is not within 1 … {columns}, the inputs of a weight {tuple(weight.shape)}")
        if tile is not None and rows % tile:
            raise ValueError(f"tile={tile} does not divide {rows}, the outputs of a weight {tuple(weight.shape)}")
        self.copies = rows // (tile or rows)
        self.shard = nn.Parameter(weight.new_zeros(rank, tile or rows))
        places = torch.eye(rank).to(weight)[:, torch.arange(columns) % rank]
        self.register_buffer("places", places, persistent=False)  # known from the shape

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.shard.repeat(1, self.copies).T, self.places

    def weight(self, weight: Tensor) -> Tensor:
        left, right = self.factors()
        return weight + left @ right


class Bone(Adapter):
    """weight: W (m, n). rank: r, the side of a block. Trains r m numbers; the update may have any rank.

    Raises ValueError for a rank that does not divide m and n.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        if rank < 1 or any(size % rank for size in weight.shape):
            raise ValueError(f"rank={rank} does not divide both sides of a weight {tuple(weight.shape)}")
        self.blocks = nn.Parameter(weight.new_zeros(len(weight) // rank, rank, rank))

    def weight(self, weight: Tensor) -> Tensor:
        rank = self.blocks.shape[1]
        cut = weight.unflatten(0, (-1, rank)).unflatten(2, (-1, rank)).transpose(1, 2)  # i, j, row, column
        moved = cut + cut @ self.blocks[:, None] + self.blocks[:, None]
        return moved.transpose(1, 2).flatten(2).flatten(0, 1)
