"""Low-rank layers from scratch: every weight is a product of two thin matrices from the first step to the last.

    W' = B A,   B (m, r), A (r, n)

Paper: Khodak, Tenenholtz, Mackey, Fusi, ICLR 2021, arXiv 2105.01029; see fisherexp/adapters/factorised.py. Their
spectral start is the default; the decay of ‖B A‖_F that they add is not here. The lower baseline of every method that
trains low-rank weights from scratch.
"""

from typing import Any, Literal

from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import Count
from fisherexp.methods.finetuning.from_scratch import FromScratch


class Factorised(FromScratch):
    """rank: r. init: 'spectral', the leading singular components of a new weight, or 'torch', factors that begin as
    torch's linear layers do. Others as for FromScratch.
    """

    name = "factorised"
    paper = "Khodak et al., ICLR 2021, arXiv 2105.01029"
    search = {"training.lr": "tag(log, interval(1e-3, 1e-1))"}

    def __init__(self, model: nn.Module, rank: Count, init: Literal["spectral", "torch"], **options: Any) -> None:
        super().__init__(model, **options)
        self.own = {"rank": rank, "init": init}

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        return adapters.Factorised(weight, **self.own | options)
