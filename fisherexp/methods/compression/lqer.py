"""LQER (L²QER): factors of the rounding error, inputs weighted by how large their values are.

    min ‖(W - Q - B A) diag(s)‖_F,   s_i = max over batches of the batch's mean |x_i|, at least 1e-4

Paper: Zhang, Cheng, Constantinides, Zhao, ICML 2024, arXiv 2402.02446. The official code also divides s by a number,
which changes nothing. mean=all takes the mean over all inputs, which does not grow with the number of batches.
"""

from typing import Any, Literal

from torch import nn

from fisherexp.methods.compression.rounded import Corrected
from fisherexp.quantization import LayerStats, Root

FLOOR = 1e-4


class LQER(Corrected):
    """mean: of |x|, the largest of all batches (published) or over all. The rest as in Corrected."""

    name = "lqer"
    paper = "Zhang et al., ICML 2024, arXiv 2402.02446"

    def __init__(self, model: nn.Module, mean: Literal["largest_batch", "all"], **options: Any) -> None:
        super().__init__(model, **options)
        self.mean = mean

    def roots(self, name: str, stats: LayerStats) -> tuple[Root | None, Root | None]:
        means = stats.mean_magnitude if self.mean == "all" else stats.largest_batch_mean
        scales = means.clamp_min(FLOOR)
        return Root(scales, 1 / scales), None
