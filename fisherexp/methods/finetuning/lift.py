"""LIFT: the entries that are largest in a low-rank approximation of the weights are trained, chosen anew on the way.

    W' = M ∘ E + (1 - M) ∘ W,   M the k largest entries of |Σ_{i ≤ q} s_i u_i v_iᵀ|,   k = min(r (m + n), m n)

Paper: Liu et al., ICML 2025, arXiv 2506.00772; see fisherexp/adapters/lift.py. The released configurations select the
smallest: select=smallest. Their Adam has betas 0.9 and 0.95 (betas) and adds its epsilon of 1e-6 to the moment before
the bias is corrected; here it is torch's. Entries of the old and the new mask keep their moments, others begin with
none.
"""

from typing import Any, Literal

from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import AtLeastOne, Count, Probability
from fisherexp.methods.finetuning.masked import MaskTuning


class LIFT(MaskTuning):
    """rank: r, of the LoRA that trains as many numbers. filter_rank: q; null for r. every: steps from one choice of the
    mask to the next; null for one mask (the static form). select: which entries. betas: of Adam; null for torch's.
    Others as for AdapterTuning.

    Raises ValueError for betas that are not two, and for betas with an optimizer that has none.
    """

    name = "lift"
    paper = "Liu et al., ICML 2025, arXiv 2506.00772"
    search = {"finetune.lr": "tag(log, interval(3e-3, 3e-1))"}
    counts_with = {"filter_rank": {"filter_rank": 1}, "every": {"every": 3}, "betas": {"betas": [0.5, 0.9]}}

    def __init__(
        self,
        model: nn.Module,
        rank: Count,
        select: Literal["largest", "smallest"],
        filter_rank: Count | None = None,
        every: Count | None = None,
        betas: AtLeastOne[Probability] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        if betas is not None and len(betas) != 2:
            raise ValueError(f"method.betas={betas}: Adam has two, as in [0.9, 0.95]")
        if betas is not None and self.training_recipe.optimizer == "sgd":
            raise ValueError(f"method.betas={betas} with finetune.optimizer=sgd, which has none: adam or adamw")
        self.betas = betas
        self.own = {"rank": rank, "select": select, "filter_rank": filter_rank, "every": every}

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        return adapters.LIFT(weight, **self.own | options)

    def configure_optimizers(self) -> dict[str, Any]:
        found = super().configure_optimizers()
        if self.betas is not None:
            for group in found["optimizer"].param_groups:
                group["betas"] = tuple(self.betas)
        return found
