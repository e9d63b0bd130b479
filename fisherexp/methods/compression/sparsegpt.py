"""SparseGPT: drop weights column by column, later columns making up for what is lost.

    saliency w_ij² / U_jj², 0 of inputs that never occur,
    then as in GPTQ with q = 0 where dropped and q = w elsewhere      (column_by_column.py)

Paper: Frantar, Alistarh, ICML 2023, arXiv 2301.00774. 2:4 chooses at every fourth column from the weights as they are
by then; unstructured at every 128th column for all outputs together, so that the size of a block counts. Where the
official code differs: its threshold drops one weight more in each block.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Positive
from fisherexp.methods.compression.column_by_column import BLOCK, column_by_column, inverse_factor
from fisherexp.methods.compression.sparsity import Sparse
from fisherexp.quantization import LayerStats, two_of_four


def sparsegpt(
    weight: Tensor,
    moment: Tensor,
    pattern: Literal["two_four", "unstructured"] = "two_four",
    sparsity: float = 0.5,
    damping: float = 0.01,
) -> Tensor:
    """W (n, m) with zeros, float64. moment: E[x xᵀ] (m, m) or its diagonal (m,)."""
    factor = inverse_factor(moment, damping)
    occurs = (moment.diagonal() if moment.dim() == 2 else moment) > 0
    ends = factor.diagonal() if factor.dim() == 2 else factor
    width = 4 if pattern == "two_four" else BLOCK
    kept = torch.empty(len(weight), width, dtype=torch.bool, device=weight.device)

    def choose(j: int, rest: Tensor) -> Tensor:
        if j % width == 0:
            saliency = (rest[:, :width] / ends[j : j + width]).square() * occurs[j : j + width]
            count = saliency.shape[1]
            kept[:, :count] = two_of_four(saliency) if pattern == "two_four" else _all_but(saliency, sparsity)
        return rest[:, 0] * kept[:, j % width]

    return column_by_column(weight, factor, choose, width)


def _all_but(scores: Tensor, share: float) -> Tensor:
    """False for this share of all scores, the lowest."""
    flat = scores.flatten()
    dropped = flat.argsort(stable=True)[: int(share * len(flat))]
    return torch.ones_like(flat, dtype=torch.bool).index_fill(0, dropped, False).view_as(scores)


class SparseGPT(Sparse):
    """damping: share of the mean diagonal. sequential: see WeightTransform. The rest as in Sparse."""

    name = "sparsegpt"
    paper = "Frantar, Alistarh, ICML 2023, arXiv 2301.00774"

    def __init__(self, model: nn.Module, damping: Positive, sequential: bool, **options: Any) -> None:
        super().__init__(model, sequential=sequential, **options)
        self.damping = damping

    def pruned(self, weight: Tensor, stats: LayerStats) -> Tensor:
        return sparsegpt(weight, stats.second_moment, self.pattern, self.sparsity, self.damping)
