"""LoftQ: rounding and the SVD of its error in turn, each on what the other leaves.

    Q ← rounded (W - B A),   B A ← rank r of W - Q,   `iterations` times from B A = 0

Paper: Li et al., ICLR 2024, arXiv 2310.08659. The factors belong to the last Q, and there is no stop: neither error
need fall. As a transform here; the paper trains the factors afterwards. Where the official code differs: its uniform
grid clips at two standard deviations and has one scale for a matrix; here it is one of Rounded's.
"""

from typing import Any

from torch import Tensor, nn

from fisherexp.config.types import Count
from fisherexp.methods.compression.rounded import Rounded
from fisherexp.methods.compression.weight_transform import halved
from fisherexp.quantization import LayerStats, StoredWeight, alternate, weighted_low_rank


class LoftQ(Rounded):
    """rank: r. iterations: of both steps. The rest as in Rounded."""

    name = "loftq"
    paper = "Li et al., ICLR 2024, arXiv 2310.08659"

    def __init__(self, model: nn.Module, rank: Count, iterations: Count, **options: Any) -> None:
        super().__init__(model, **options)
        self.rank, self.iterations = rank, iterations

    def compress(self, name: str, weight: Tensor, stats: LayerStats) -> StoredWeight:
        found, _ = alternate(weight, self.form, lambda rest: weighted_low_rank(rest, self.rank), self.iterations)
        return StoredWeight(tuple(weight.shape), self.form, found.parts, *halved(found.up, found.down))
