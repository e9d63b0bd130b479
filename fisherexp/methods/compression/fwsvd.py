"""FWSVD: low-rank factors that reconstruct best the rows or columns that matter to the task.

Paper: Hsu et al., ICLR 2022, arXiv 2207.00112. With F the diagonal empirical Fisher of W (n, m) and I_i = mean_j F_ij,

    diag(√I) W = U S V^T,   L R = diag(√I)^-1 U_r S_r V_r^T,   layer by layer

and the factors are fine-tuned. The paper weights the rows of a W that it applies as x W, the input units (axis=in);
axis=out weights output units, two_sided both by a rank-one fit to F (as in LQ-LoRA). The paper sums rows of F and has
all of S_r in the first factor; here I is over the mean of F and each factor has roots of S_r, with the same L R. Ours:
importances below 1e-6 of their mean count as that. The code shipped with FlashSVD squares gradients of mini-batch
means (importance.gradients=batch_mean), and adds 1e-6 and 1e-5.
"""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from fisherexp.config.types import Count, Positive
from fisherexp.methods.compression.factorization import Parts
from fisherexp.methods.compression.fisher_calibration import FisherCalibration
from fisherexp.methods.compression.low_rank import LowRank
from fisherexp.methods.compression.weighted_svd import fisher_scales, weighted_svd
from fisherexp.methods.importance import Importance
from fisherexp.methods.recipe import Recipe


class FWSVD(LowRank):
    """axis: whose Fisher counts. importance: the estimator of F. The rest as in LowRank."""

    paper = "Hsu et al., ICLR 2022, arXiv 2207.00112"
    start = "source"

    def __init__(
        self,
        model: nn.Module,
        rank: Count | None,
        ratio: Positive,
        axis: Literal["out", "in", "two_sided"],
        importance: Importance,
        finetune: Recipe,
    ) -> None:
        super().__init__(model, rank, ratio, finetune, FisherCalibration(model, importance))
        self.axis = axis

    def decompose(
        self, weights: Mapping[str, Tensor], ranks: Mapping[str, int], found: Mapping[str, Tensor] | None
    ) -> tuple[dict[str, Parts], dict[str, Any]]:
        parts = {}
        for name, weight in weights.items():
            row, col = fisher_scales(found[name], self.axis)
            parts[name] = (0.0, *weighted_svd(weight, row, col, ranks[name]))
        return parts, {}
