"""QERA, exact: the factors of the rounding error that lose least of the layer's outputs.

    min E‖(W - Q - B A) x‖²:   S = R^½,  R = E[x xᵀ],   the squared loss is Σ_{i>r} σ_i² of (W - Q) R^½

Paper: Zhang, Wong, Xiao, Constantinides, Zhao, ICLR 2025, arXiv 2410.06040. Where the official code differs: its outer
products are float32, the root SciPy's of the sum, and singular values are replaced only where a solver fails; here all
is float64, and directions without inputs have no inverse (fisherexp/quantization/low_rank.py). Not here: its mixed
mode, in which each layer is exact, diagonal or plain, and its optional quantizer of B.
"""

from typing import Any

from torch import nn

from fisherexp.methods.compression.rounded import Corrected
from fisherexp.quantization import LayerStats, Root, psd_root


class QERAExact(Corrected):
    """sequential: see WeightTransform; the published method has one pass through the untouched model. The rest as in
    Corrected."""

    name = "qera_exact"
    paper = "Zhang et al., ICLR 2025, arXiv 2410.06040"

    def __init__(self, model: nn.Module, sequential: bool, **options: Any) -> None:
        super().__init__(model, sequential=sequential, **options)

    def roots(self, name: str, stats: LayerStats) -> tuple[Root | None, Root | None]:
        return psd_root(stats.second_moment), None
