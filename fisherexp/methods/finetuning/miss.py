"""MiSS: one small matrix, zero at the start, that all shards of a weight's inputs share.

    W'[:, j] = W[:, j] + D[j mod r],   D (r, m) = 0 at the start

Paper: Kang and Yin, arXiv 2409.15371, whose first versions call it Bone and DiSHA; see fisherexp/adapters/miss.py. As
in peft, which holds the authors' layers. r is not LoRA's: the numbers trained are r m for each weight (m, n).
"""

from typing import Any

from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import Count
from fisherexp.methods.finetuning.finetuning import AdapterTuning


class MiSS(AdapterTuning):
    """rank: r. tile: D has as many columns, repeated along the outputs, instead of m. Others as for AdapterTuning."""

    name = "miss"
    paper = "Kang and Yin, 2024, arXiv 2409.15371"
    search = {"finetune.lr": "tag(log, interval(1e-3, 1e-1))"}
    counts_with = {"tile": {"tile": 2}}

    def __init__(self, model: nn.Module, rank: Count, tile: Count | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        self.rank, self.tile = rank, tile

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        return adapters.MiSS(weight, **{"rank": self.rank, "tile": self.tile} | options)
