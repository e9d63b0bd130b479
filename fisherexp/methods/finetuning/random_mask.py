"""A random sparse mask: the baseline of every other mask, and of adapters at the same count.

    W' = M ∘ E + (1 - M) ∘ W,   M of min(r (m + n), m n) entries drawn once, E = W at the start

Paper: SHiRA, Bhardwaj et al., NeurIPS 2024, arXiv 2406.13175; see fisherexp/adapters/masks.py. The authors add the
masked update to W; here the entries themselves are trained, so that weight decay is that of the weights.
"""

from typing import Any

from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import Count
from fisherexp.methods.finetuning.masked import MaskTuning


class RandomMask(MaskTuning):
    """rank: r, of the LoRA that trains as many numbers. Others as for AdapterTuning."""

    name = "random_mask"
    paper = "Bhardwaj et al., NeurIPS 2024, arXiv 2406.13175"
    search = {"finetune.lr": "tag(log, interval(3e-3, 3e-1))"}

    def __init__(self, model: nn.Module, rank: Count, **options: Any) -> None:
        super().__init__(model, **options)
        self.rank = rank

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        return adapters.RandomMask(weight, **{"rank": self.rank} | options)
