"""Low-rank factors of the rounding error, rows and columns weighted by the diagonal Fisher: ours.

    min ‖diag(p) (W - Q - B A) diag(s)‖_F,   p_i = √mean_j F_ij,  s_j = √mean_i F_ij

The weights are those of LQ-LoRA (arXiv 2311.12023) and of FWSVD's two sides (arXiv 2207.00112), on the error of one
rounding. F is that of the source over all training data, found as an artefact.
"""

from typing import Any

from torch import nn

from fisherexp.methods.compression.rounded import Corrected
from fisherexp.methods.compression.weighted_svd import fisher_scales
from fisherexp.methods.importance import Importance
from fisherexp.methods.needs import Curvature
from fisherexp.quantization import LayerStats, Root, as_matrix


class FisherLowRank(Corrected):
    """importance: the estimator of F. The rest as in Corrected."""

    paper = "ours; Guo et al., ICLR 2024, arXiv 2311.12023"
    needs = (Curvature("fisher", "importance"),)

    def __init__(self, model: nn.Module, importance: Importance, **options: Any) -> None:
        super().__init__(model, **options)
        self.importance = importance

    def roots(self, name: str, stats: LayerStats) -> tuple[Root | None, Root | None]:
        fisher = as_matrix(self.model.get_submodule(name), self.given["fisher"][f"{name}.weight"])
        outputs, inputs = fisher_scales(fisher, "two_sided")
        return Root(inputs, 1 / inputs), Root(outputs, 1 / outputs)
