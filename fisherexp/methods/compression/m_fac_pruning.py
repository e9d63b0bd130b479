"""M-FAC pruning: Optimal Brain Surgeon with the full low-rank Fisher, recomputed on the way to the sparsity.

Paper: Frantar, Kurtic, Alistarh, NeurIPS 2021, arXiv 2107.03356. Saliency, updates and F are in obs.py:

    ρ_p = w_p² / (2 [F^-1]_pp),   w ← w + F^-1 q,   F = λ I + G^T G / m over the weights that are left

Woodbury's identity stands in for the paper's recursion over gradients; the numbers are the same (see LowRankFisher).
block=null is the full F. The official default, blocks of 128, saves nothing here (m > 128 makes m×m the larger matrix):
blocks of that size are what WoodFisher computes directly. Blocks are cut from the weights that are left.

update='group' is ours: the exact update for all dropped weights together, where the published one sums the updates
for each alone and counts what two of them share twice.
"""

from typing import Any, Literal

from torch import Tensor, nn

from fisherexp.config.types import Count
from fisherexp.methods.compression.obs import Blocks, ObsPruning, group_update, individual_update, saliency
from fisherexp.methods.compression.pruning import lowest


class MFACPruning(ObsPruning):
    """block: weights per block, None for one. update: of the weights that stay. The rest as in ObsPruning."""

    name = "m_fac_pruning"
    paper = "Frantar et al., NeurIPS 2021, arXiv 2107.03356"
    start = "source"

    def __init__(
        self, model: nn.Module, block: Count | None, update: Literal["individual", "group"], **options: Any
    ) -> None:
        super().__init__(model, **options)
        if block is not None and update == "group":
            raise ValueError("method.update=group needs the full Fisher: method.block=null")
        self.block, self.update = block, update

    def surgery(self, weights: Tensor, gradients: Tensor, count: int) -> tuple[Tensor, Tensor]:
        fisher = Blocks(gradients, self.damping, self.block or len(weights))
        inverse = fisher.inverse_diagonal()
        dropped = lowest(saliency(weights, inverse), count)
        if self.update == "group":
            return group_update(weights, dropped, gradients, self.damping), dropped
        return individual_update(weights, dropped, fisher, inverse), dropped
