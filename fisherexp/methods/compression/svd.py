"""Low-rank factors by the plain singular value decomposition: the baseline that knows of no data.

W ≈ L R = U_r S_r V_r^T,   the nearest matrix of rank r  (Eckart, Young 1936)
"""

from typing import Any

from torch import Tensor, nn

from fisherexp.config.types import Count, Positive
from fisherexp.methods.compression.low_rank import LowRank
from fisherexp.methods.compression.low_rank_layers import LowRankLayer
from fisherexp.methods.compression.weighted_svd import weighted_svd
from fisherexp.methods.recipe import Recipe


class SVD(LowRank):
    """rank, ratio, finetune: see LowRank."""

    paper = "Denton et al., NeurIPS 2014, arXiv 1404.0736"
    start = "source"

    def __init__(self, model: nn.Module, rank: Count | None, ratio: Positive, finetune: Recipe) -> None:
        super().__init__(model, rank, ratio, finetune)

    def decompose(self, layers: dict[str, LowRankLayer], fisher: dict[str, Tensor] | None) -> dict[str, Any]:
        for layer in layers.values():
            n, m = layer.matrix.shape
            ones = layer.matrix.new_ones(max(n, m))
            layer.decompose(0.0, *weighted_svd(layer.matrix, ones[:n], ones[:m], layer.left.shape[1]))
        return {}
