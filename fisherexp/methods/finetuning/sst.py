"""SST: training from scratch in the singular decomposition of every weight, all values and a few vectors at a time.

    W' = U diag(s) Vᵀ;   all s_i move in every step, r sampled u_i, v_i for a while; now and then a new decomposition

Paper: Zhao, Zhang, Li, Liu, Cannistraci, ICML 2025, arXiv 2405.15481; see fisherexp/adapters/sst.py. All K = min(m, n)
components stay, so that the weight keeps its full rank: K + r (m + n) numbers are trained at a time, more in the end.
Compare by what an optimizer has to remember, not by what the network holds.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import Count
from fisherexp.methods.finetuning.from_scratch import FromScratch


class SST(FromScratch):
    """rank: r. every: steps from one draw of vectors to the next. draws: from one decomposition to the next; None for
    ⌈K / r⌉ of each layer. enhanced: gradients of vectors without the factor s_i. Others as for FromScratch.
    """

    name = "sst"
    paper = "Zhao et al., ICML 2025, arXiv 2405.15481"
    search = {"training.lr": "tag(log, interval(1e-3, 1e-1))"}
    counts_with = {"draws": {"every": 1, "draws": 1}, "every": {"every": 2}}

    def __init__(
        self, model: nn.Module, rank: Count, every: Count, enhanced: bool, draws: Count | None = None, **options: Any
    ) -> None:
        super().__init__(model, **options)
        self.own = {"rank": rank, "every": every, "draws": draws, "enhanced": enhanced}

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        return adapters.SST(weight, **self.own | options)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer, *rest: Any) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, *rest)
        adapters.forget_resampled(self.optimizers(use_pl_optimizer=False), self.model)
