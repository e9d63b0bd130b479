"""SALT: the leading singular values of the weights are scaled and shifted, the others' block gets a low-rank update.

    W' = U relu(blockdiag(diag(a ∘ s_{≤k} + b), diag(s_{>k}) + X Y)) Vᵀ,   a = 1, b = 0, Y = 0 at the start

Paper: Elsayed et al., 2025, arXiv 2503.16055; see fisherexp/adapters/salt.py. The authors' weight decay pulls a, and
with it the leading values, to zero; here that of `finetune` is 0. Their rank is fixed in the code to 256, their
penalty's weight to 0.
"""

from typing import Any, Literal

from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import Count, NonNegative, Probability
from fisherexp.methods.finetuning.finetuning import AdapterTuning


class SALT(AdapterTuning):
    """share: of the values that are scaled, k / K. rank: of X Y. relu: over the singular values ("diag"), the whole
    block ("all", the authors') or nothing. penalty: weight of the update's size. Others as for AdapterTuning.
    """

    name = "salt"
    paper = "Elsayed et al., 2025, arXiv 2503.16055"
    search = {"finetune.lr": "tag(log, interval(1e-3, 1))"}

    def __init__(
        self,
        model: nn.Module,
        share: Probability,
        rank: Count,
        relu: Literal["diag", "all", "none"],
        penalty: NonNegative,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.own = {"share": share, "rank": rank, "relu": relu, "penalty_weight": penalty}

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        return adapters.SALT(weight, **self.own | options)
