"""SVD-LLM: low-rank factors in place of each matrix, those that lose least of the layer's outputs.

    W S = U Σ Vᵀ,   S Sᵀ = E[x xᵀ],   W ≈ U_r Σ_r V_rᵀ S⁻¹

Paper: Wang, Zheng, Wan, Zhang, ICLR 2025, arXiv 2403.07378. S is Cholesky's there and a symmetric root here, with the
same factors; its update of the factors by a second pass and its training are not here.
"""

from typing import Any

from torch import Tensor, nn

from fisherexp.config.types import Count, Positive
from fisherexp.methods.compression.weight_transform import WeightTransform, halved
from fisherexp.quantization import LayerStats, StoredWeight, psd_root, weighted_low_rank


class SVDLLM(WeightTransform):
    """rank: of every layer, or None for the rank at which the factors hold `ratio` of its weights, at least 1. The rest
    as in WeightTransform."""

    name = "svd_llm"
    paper = "Wang et al., ICLR 2025, arXiv 2403.07378"
    counts_with = {"rank": {"rank": 3}}

    def __init__(self, model: nn.Module, rank: Count | None, ratio: Positive, sequential: bool, **options: Any) -> None:
        super().__init__(model, sequential=sequential, **options)
        self.rank, self.ratio = rank, ratio

    @property
    def weight_bits(self) -> int:
        return 16

    def compress(self, name: str, weight: Tensor, stats: LayerStats) -> StoredWeight:
        n, m = weight.shape
        rank = self.rank or max(1, int(self.ratio * n * m / (n + m)))
        factors = weighted_low_rank(weight, rank, psd_root(stats.second_moment))
        return StoredWeight((n, m), None, {}, *halved(*factors))
