"""SVFit: the leading singular values of the weights are trained, the vectors stay.

    W' = W + U_r diag(σ - s_r) V_rᵀ,   σ = s_r at the start

Paper: arXiv 2409.05926; see fisherexp/adapters/svfit.py, also for r. No code of the authors is known.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import Count, Probability
from fisherexp.methods.finetuning.finetuning import AdapterTuning


class SVFit(AdapterTuning):
    """rank: r; null for as many values as hold `energy`, a share of Σ s_i². Others as for AdapterTuning.

    outcome: under "metrics" also sum_share, what the r values hold of the plain sum Σ s_i, in %, a mean over layers;
        another way to read the paper's "information".
    """

    name = "svfit"
    paper = "SVFit, 2024, arXiv 2409.05926"
    search = {"finetune.lr": "tag(log, interval(3e-3, 3e-1))", "energy": "interval(0.9, 0.999)"}
    counts_with = {"rank": {"rank": 2}}

    def __init__(self, model: nn.Module, energy: Probability, rank: Count | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        self.rank, self.energy = rank, energy

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        return adapters.SVFit(weight, **{"rank": self.rank, "energy": self.energy} | options)

    def merge(self) -> None:
        chains = [pair for layer in adapters.adapted_layers(self.model).values() for pair in layer.chain()]
        shares = [adapter.start.double().sum() / torch.linalg.svdvals(w.double()).sum() for adapter, w in chains]
        self.outcome["metrics"]["sum_share"] = 100 * torch.stack(shares).mean().item()
        super().merge()
