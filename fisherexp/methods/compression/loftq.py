"""LoftQ: rounding and the SVD of its error in turn, each on what the other leaves.

    Q ← rounded (W - B A),   B A ← rank r of W - Q,   `iterations` times from B A = 0

Paper: Li et al., ICLR 2024, arXiv 2310.08659. The factors belong to the last Q, and there is no stop: neither error
need fall, so the outcome has both after each iteration. As a transform here; the paper trains the factors afterwards.
Where the official code differs: its uniform grid clips at two standard deviations and has one scale for a matrix; here
it is one of Rounded's.
"""

from typing import Any

from torch import Tensor, nn

from fisherexp.config.types import Count
from fisherexp.methods.compression.rounded import Rounded
from fisherexp.methods.compression.weight_transform import halved
from fisherexp.quantization import LayerStats, StoredWeight, iterates, weighted_low_rank


class LoftQ(Rounded):
    """rank: r. iterations: of both steps. The rest as in Rounded.

    outcome: by layer output_errors and weight_errors, relative, after each iteration.
    """

    name = "loftq"
    paper = "Li et al., ICLR 2024, arXiv 2310.08659"

    def __init__(self, model: nn.Module, rank: Count, iterations: Count, **options: Any) -> None:
        super().__init__(model, **options)
        self.rank, self.iterations = rank, iterations
        self.trends: dict[str, list[tuple[float, float]]] = {}  # of outputs and of the weight, by layer

    def compress(self, name: str, weight: Tensor, stats: LayerStats) -> StoredWeight:
        self.trends[name] = []
        for found in iterates(weight, self.form, lambda rest: weighted_low_rank(rest, self.rank), self.iterations):
            stored = StoredWeight(tuple(weight.shape), self.form, found.parts, *halved(found.up, found.down))
            self.trends[name].append(self.errors_of(weight, stored, stats))
        return stored

    def summary(self) -> dict[str, Any]:
        found = super().summary()
        for name, trend in self.trends.items():
            of_outputs, of_weight = zip(*trend, strict=True)
            found["layers"][name] |= {"output_errors": list(of_outputs), "weight_errors": list(of_weight)}
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["trends"] = self.trends

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.trends = checkpoint["trends"]
