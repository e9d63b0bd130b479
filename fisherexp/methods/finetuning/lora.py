"""LoRA: an update of low rank beside every adapted weight.

    W' = W + α / r · B A,   B (m, r) = 0 and A (r, n) random at the start

Paper: Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen, ICLR 2022, arXiv 2106.09685; see fisherexp/adapters/lora.py.
A is Kaiming uniform, as in the authors' code; the paper has a Gaussian. The learning rate falls by a half cosine, there
by a line.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import Count, Positive
from fisherexp.methods.finetuning.finetuning import AdapterTuning


class LoRA(AdapterTuning):
    """rank: r. alpha: α. Others as for AdapterTuning."""

    name = "lora"
    paper = "Hu et al., ICLR 2022, arXiv 2106.09685"
    search = {"finetune.lr": "tag(log, interval(1e-3, 1e-1))"}
    factors: ClassVar[Callable[..., Adapter]] = adapters.LoRA

    def __init__(self, model: nn.Module, rank: Count, alpha: Positive, **options: Any) -> None:
        super().__init__(model, **options)
        self.rank, self.alpha = rank, alpha

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        return type(self).factors(weight, **{"rank": self.rank, "alpha": self.alpha} | options)
