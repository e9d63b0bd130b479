"""ZeroQuant-V2's low-rank compensation: factors of the rounding error by the plain SVD, whatever the inputs are.

    min ‖W - Q - B A‖_F,   Q = rounded W

Yao, Wu, Li, Youn, He 2023, arXiv 2303.08302 (LoRC).
"""

from fisherexp.methods.compression.rounded import Corrected
from fisherexp.quantization import LayerStats, Root


class ZeroQuantV2(Corrected):
    """Options as in Corrected."""

    name = "zeroquant_v2"
    paper = "Yao et al., 2023, arXiv 2303.08302"

    def roots(self, name: str, stats: LayerStats) -> tuple[Root | None, Root | None]:
        return None, None
