"""Bone, peft's "bat": every block of a weight moves by a map of itself that its row of blocks shares.

    W'_ij = W_ij + W_ij B_i + B_i,   blocks W_ij (r, r), B_i (r, r) = 0 at the start

Paper: Kang and Yin, first version of arXiv 2409.15371; see fisherexp/adapters/miss.py. r has to divide both sides of
every weight; the numbers trained are r m for each weight (m, n), and the update may have any rank.
"""

from typing import Any

from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import Count
from fisherexp.methods.finetuning.finetuning import AdapterTuning


class Bone(AdapterTuning):
    """rank: r, the side of a block. Others as for AdapterTuning."""

    name = "bat"
    paper = "Kang and Yin, 2024, arXiv 2409.15371"
    search = {"finetune.lr": "tag(log, interval(1e-3, 1e-1))"}
    counts_with = {  # a head of five classes takes no larger blocks
        "targets": {"rank": 1, "exclude": None, "targets": "^head$"},
        "exclude": {"rank": 1, "exclude": None},
    }

    def __init__(self, model: nn.Module, rank: Count, **options: Any) -> None:
        super().__init__(model, **options)
        self.rank = rank

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        return adapters.Bone(weight, **{"rank": self.rank} | options)
