"""EVA: LoRA that begins with the directions in which each layer's inputs vary most on the new task.

    W' = W + α / r · B A,   B = 0, A = leading principal directions of the inputs; ranks by explained variance

Paper: Paischer et al., NeurIPS 2025, arXiv 2410.07170; see fisherexp/adapters/eva.py and explained.py. The paper's
theorem is about XᵀX; its code, followed here, takes the mean out (incremental PCA) and counts a direction's variance
as a share of that of all inputs. It decomposes equal inputs of several layers once; here each has a decomposition. Its
whitening divides by the root of a singular value, which grows with the images looked at; here by the standard
deviation. The layers' common budget is of ranks: the numbers trained may be more or fewer than LoRA's.
"""

import re
from typing import Any

from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.adapters.eva import redistributed
from fisherexp.config.types import Positive, Probability
from fisherexp.methods.finetuning.explained import InputDirections
from fisherexp.methods.finetuning.lora import LoRA


class EVA(LoRA):
    """rho: ρ, directions sought per layer as a multiple of the rank; 1 gives every layer the same. tau: how near a
    direction has to be to its last estimate to count as found, a cosine. whiten: divide each by its standard deviation.
    Others as for LoRA, but no rank by layer: the variances say these. Linear layers only.

    outcome: also ranks, by layer; 0 for a layer without an adapter. batches, looked at for the directions.
    """

    name = "eva"
    paper = "Paischer et al., NeurIPS 2025, arXiv 2410.07170"
    search = {"finetune.lr": "tag(log, interval(1e-3, 1))"}
    needs = (InputDirections(),)
    takes_rows = False
    counts_with = {"by_layer": {"by_layer": {"backbone": {"alpha": 3.0}}}}

    def __init__(
        self, model: nn.Module, rho: Positive = 2.0, tau: Probability = 0.99, whiten: bool = False, **options: Any
    ) -> None:
        super().__init__(model, **options)
        if any("rank" in given for given in (self.by_layer or {}).values()):
            raise ValueError("method.by_layer: a layer's rank is what its explained variance says; nearest: alpha")
        self.rho, self.tau, self.whiten = rho, tau, whiten

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        return adapters.EVA(weight, **{"rank": self.rank, "alpha": self.alpha} | options)

    def freeze(self) -> None:
        found = self.given["directions"]
        ranks = redistributed(found.ratios, self.rank)
        for pattern in self.by_layer or {}:
            if not any(re.search(pattern, name) for name in ranks):
                raise ValueError(f"method.by_layer: '{pattern}' matches none of the layers that are meant")
        given = {}
        for name in (name for name, rank in ranks.items() if rank):
            rows = found.whitened(name) if self.whiten else found.directions[name]
            given[f"^{re.escape(name)}$"] = self.options_of(name) | {"directions": rows[: ranks[name]]}
        self.outcome |= {"ranks": ranks, "batches": found.batches}
        chosen = {"options": given, "trained": self.trained, "dropout": self.dropout}
        adapters.inject(self.model, [name for name, rank in ranks.items() if rank], self.adapter, **chosen)
