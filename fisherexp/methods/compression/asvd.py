"""ASVD: low-rank factors that reconstruct best the columns whose inputs are large.

    W diag(s) = U Σ Vᵀ,   L R = U_r Σ_r V_rᵀ diag(s)⁻¹,   s_j = (E|x_j|)^α   or   (E x_j²)^(α/2)

Paper: Yuan et al., 2023, arXiv 2312.05821: the first s, α = 1/2, and a rank for each layer by its sensitivity. Here all
layers have the ranks of `svd` and `fwsvd`, so that rows are compared at one size, and the factors are fine-tuned as
theirs are. The second s, with α = 1, loses least of the outputs of inputs that are uncorrelated. scale=full takes the
whole root E[x xᵀ]^½ in the place of diag(s), as in SVD-LLM (arXiv 2403.07378): no factors of that rank lose less of
the layer's outputs.
"""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from fisherexp.config.types import Count, Positive
from fisherexp.methods.compression.factorization import Parts
from fisherexp.methods.compression.input_calibration import InputCalibration
from fisherexp.methods.compression.low_rank import LowRank
from fisherexp.methods.recipe import Recipe
from fisherexp.quantization import LayerStats, Root, psd_root, weighted_low_rank


def input_root(stats: LayerStats, scale: str, alpha: float) -> Root:
    """S of a layer's inputs, as `scale` says, and its inverse; inputs that are always zero have none."""
    if scale == "full":
        return psd_root(stats.second_moment)
    squares = stats.mean_square if scale == "rms" else stats.mean_magnitude.square()
    return psd_root(squares.pow(alpha))


class ASVD(LowRank):
    """scale: root mean square of each input ("rms"), mean magnitude ("absolute", as published), or the root of the
    whole second moment ("full"). alpha: α. The rest as in LowRank.

    outcome: also squared_output_error_by_layer, E‖(W - L R) x‖² before fine-tuning.
    """

    name = "asvd"
    paper = "Yuan et al., 2023, arXiv 2312.05821"
    start = "source"
    counts_with = {"alpha": {"scale": "absolute"}}

    def __init__(
        self,
        model: nn.Module,
        rank: Count | None,
        ratio: Positive,
        scale: Literal["rms", "absolute", "full"],
        alpha: Positive,
        finetune: Recipe,
    ) -> None:
        super().__init__(model, rank, ratio, finetune, InputCalibration(model, full=scale == "full"))
        self.scale, self.alpha = scale, alpha

    def decompose(
        self, weights: Mapping[str, Tensor], ranks: Mapping[str, int], found: Mapping[str, LayerStats] | None
    ) -> tuple[dict[str, Parts], dict[str, Any]]:
        parts, lost = {}, {}
        for name, weight in weights.items():
            factors = weighted_low_rank(weight, ranks[name], input_root(found[name], self.scale, self.alpha))
            left, right = (factor.to(weight) for factor in factors)
            parts[name] = (0.0, left, right)
            lost[name] = found[name].squared_output(weight - left @ right).item()
        return parts, {"squared_output_error_by_layer": lost}
