"""The largest or the smallest entries of each weight are trained: baselines of LIFT and SaRA.

    W' = M ∘ E + (1 - M) ∘ W,   M the min(r (m + n), m n) largest (or smallest) |W|, E = W at the start

Paper: baseline of Liu et al., ICML 2025, arXiv 2506.00772; see fisherexp/adapters/masks.py.
"""

from typing import Any, Literal

from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import Count
from fisherexp.methods.finetuning.masked import MaskTuning


class MagnitudeMask(MaskTuning):
    """rank: r, of the LoRA that trains as many numbers. select: which entries. Others as for AdapterTuning."""

    name = "magnitude_mask"
    paper = "baseline of Liu et al., ICML 2025, arXiv 2506.00772"
    search = {"finetune.lr": "tag(log, interval(3e-3, 3e-1))"}

    def __init__(self, model: nn.Module, rank: Count, select: Literal["largest", "smallest"], **options: Any) -> None:
        super().__init__(model, **options)
        self.rank, self.select = rank, select

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        return adapters.MagnitudeMask(weight, **{"rank": self.rank, "select": self.select} | options)
