"""FlashSVD: how much memory a low-rank transformer needs for its activations, plain and streamed, as a study.

Low-rank layers alone make weights small, not activations: each layer's outputs are as wide as before. Made tile by tile
from the narrow product they are not (Shao et al., arXiv 2508.01506; models/streaming.py). Here the source's layers are
decomposed, each W ≈ L R, and one batch of test data goes through the dense model, the plain low-rank one and the
streamed one. A source that svd or fwsvd compressed (source=run source.run=<hash>, at the same rank or ratio) has the
factors it was made of.

Memory is that of tensors alive at once (metrics.live_memory); speed: scripts/bench/streaming.py.
"""

import copy
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, Positive
from fisherexp.data.batch import Batch
from fisherexp.methods.need import Costs, Need
from fisherexp.methods.spectral.study import Study
from fisherexp.metrics.live_memory import LiveMemory
from fisherexp.models.eval_mode import eval_mode
from fisherexp.models.streaming import factorize, plain, stream, streamable

MEBI = 2**20


class FirstBatch(Need):
    """The first batch of the test part."""

    def __init__(self) -> None:
        super().__init__("first_batch")

    def resolve(self, bench: Any, method: Any, source: Any) -> tuple[Batch, Costs]:
        begun = time.perf_counter()
        batch = next(iter(bench.setting.loader("test")))
        return batch, [{"seconds": time.perf_counter() - begun, "forward_samples": 0, "backward_samples": 0}]


def ranks_of(model: nn.Module, rank: int | None, ratio: float) -> dict[str, int]:
    """Of all layers that are streamed: `rank`, or that at which factors hold `ratio` of the weights, as svd has it."""
    names = [name for kinds in streamable(model).values() for kind in kinds for name in kind]
    shapes = {name: model.get_submodule(name).weight.shape for name in names}
    return {name: min(n, m, rank or max(1, int(ratio * n * m / (n + m)))) for name, (n, m) in shapes.items()}


@torch.no_grad()
def traced(model: nn.Module, inputs: Any) -> tuple[Tensor, LiveMemory]:
    """Outputs of a model in eval mode, and the memory of its activations."""
    with eval_mode(model), LiveMemory() as memory:
        outputs = model(inputs)
    return outputs, memory


class FlashSVD(Study):
    """rank: of every layer, or None for the rank at which factors hold `ratio` of its weights. tile: hidden units at a
    time; heads_at_once: heads. The batch is data.eval_batch_size samples.

    outcome: peak and largest bytes of each of the three. Metrics: peak_dense, peak_plain, peak_streamed in MiB;
    saved, % that streaming saves of the plain model's; difference, of logits from the plain model's, relative to the
    largest. Raises ValueError for a model that has no layers to stream.
    """

    name = "flash_svd"
    paper = "Shao et al., arXiv 2508.01506"
    needs = (FirstBatch(),)
    headings = {
        "peak_dense": "dense\nMiB",
        "peak_plain": "plain\nMiB",
        "peak_streamed": "streamed\nMiB",
        "saved": "saved %",
        "difference": "difference",
    }
    better = {"peak_streamed": "lower", "saved": "higher", "difference": "lower"}

    def __init__(
        self, model: nn.Module, rank: Count | None, ratio: Positive, tile: Count, heads_at_once: Count
    ) -> None:
        super().__init__(model)
        self.ranks = ranks_of(model, rank, ratio)
        self.tile, self.heads_at_once = tile, heads_at_once

    def source_loaded(self) -> None:
        inputs, factors = self.given["first_batch"].inputs, factorize(self.model, self.ranks)
        low, narrow = copy.deepcopy(self.model), copy.deepcopy(self.model)
        plain(low, factors)
        stream(narrow, factors, self.tile, self.heads_at_once)
        found = {name: traced(m, inputs) for name, m in (("dense", self.model), ("plain", low), ("streamed", narrow))}
        memory = {name: {"peak": each.peak, "largest": each.largest} for name, (_, each) in found.items()}
        expected, outputs = found["plain"][0], found["streamed"][0]
        self.outcome = {
            "rank_by_layer": self.ranks,
            "samples": len(expected),
            "bytes": memory,
            "metrics": {
                **{f"peak_{name}": each["peak"] / MEBI for name, each in memory.items()},
                "saved": 100 * (1 - memory["streamed"]["peak"] / memory["plain"]["peak"]),
                "difference": float((outputs - expected).abs().max() / expected.abs().max()),
            },
        }

    def leave_files(self, folder: Path) -> None:
        if not self.outcome:  # of a scenario with requests, nobody says when the source is loaded
            self.source_loaded()
