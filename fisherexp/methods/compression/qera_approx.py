"""QERA, diagonal: factors of the rounding error that lose least of the outputs if inputs are uncorrelated.

    min E‖(W - Q - B A) x‖²   with E[x_i x_j] = 0, i ≠ j:   S = diag(√E[x_i²])

Paper: Zhang, Wong, Xiao, Constantinides, Zhao, ICLR 2025, arXiv 2410.06040. The default of the official code's files.
"""

from fisherexp.methods.compression.rounded import Corrected
from fisherexp.quantization import LayerStats, Root, psd_root


class QERAApprox(Corrected):
    """Options as in Corrected."""

    name = "qera_approx"
    paper = "Zhang et al., ICLR 2025, arXiv 2410.06040"

    def roots(self, name: str, stats: LayerStats) -> tuple[Root | None, Root | None]:
        return psd_root(stats.mean_square), None
