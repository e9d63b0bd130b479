"""PST: prune weights while a low-rank update of them is trained, by scores that are trained as thin matrices.

    W' = M ∘ (W + β U V),   M = 0 where |W + β U V| + α₁ A B + α₂ (R 1ᵀ + 1 Cᵀ) is smallest

Paper: Li, Luo, Tan, Wang, Huang, Li, Bai, IJCAI 2022, arXiv 2205.11005; see fisherexp/adapters/pst.py. The record holds
an ordinary model with zeros. product=0.0 and sums=0.0 prune by the magnitude of the moving weights, free of data; with
dynamic=false besides the mask is fixed by |W|. Twice as many numbers as LoRA of the same rank are trained, and m + n
more.
"""

from typing import Any

from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import Adapter
from fisherexp.config.types import Count, NonNegative, Probability
from fisherexp.methods.finetuning.finetuning import AdapterTuning


class PST(AdapterTuning):
    """sparsity: v at the end, of each weight. rank, score_rank: of the update and of the scores. product, sums: α₁, α₂.
    scale: β. initial, final: shares of all steps before the sparsity rises and at its end. dynamic: whether the scores'
    magnitude is that of the moving weights. Others as for AdapterTuning.

    outcome: also sparsity, the share of zeros in each layer.
    """

    name = "pst"
    paper = "Li et al., IJCAI 2022, arXiv 2205.11005"
    search = {"finetune.lr": "tag(log, interval(1e-3, 1e-1))"}

    def __init__(
        self,
        model: nn.Module,
        sparsity: Probability,
        rank: Count,
        score_rank: Count,
        product: NonNegative,
        sums: NonNegative,
        scale: NonNegative,
        initial: Probability,
        final: Probability,
        dynamic: bool,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.own = {"sparsity": sparsity, "rank": rank, "score_rank": score_rank, "scale": scale}
        self.own |= {"product_weight": product, "sum_weight": sums, "initial": initial, "final": final}
        self.own["dynamic"] = dynamic

    def adapter(self, weight: Tensor, **options: Any) -> Adapter:
        return adapters.PST(weight, **self.own | options)

    def merge(self) -> None:
        layers = adapters.adapted_layers(self.model)
        super().merge()
        self.outcome["sparsity"] = {name: (layer.weight == 0).float().mean().item() for name, layer in layers.items()}
