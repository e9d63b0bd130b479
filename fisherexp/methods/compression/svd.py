"""Low-rank factors by the plain singular value decomposition: the baseline that knows of no data.

W ≈ L R = U_r S_r V_r^T,   the nearest matrix of rank r  (Eckart, Young 1936)
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fisherexp.config.types import Count, Positive
from fisherexp.methods.compression.factorization import Parts
from fisherexp.methods.compression.low_rank import LowRank
from fisherexp.methods.compression.weighted_svd import weighted_svd
from fisherexp.methods.recipe import Recipe


class SVD(LowRank):
    """rank, ratio, finetune: see LowRank."""

    paper = "Denton et al., NeurIPS 2014, arXiv 1404.0736"
    start = "source"

    def __init__(self, model: nn.Module, rank: Count | None, ratio: Positive, finetune: Recipe) -> None:
        super().__init__(model, rank, ratio, finetune)

    def decompose(
        self, weights: Mapping[str, Tensor], ranks: Mapping[str, int], found: None
    ) -> tuple[dict[str, Parts], dict[str, Any]]:
        parts = {}
        for name, weight in weights.items():
            n, m = weight.shape
            parts[name] = (0.0, *weighted_svd(weight, weight.new_ones(n), weight.new_ones(m), ranks[name]))
        return parts, {}
