"""LOST: low-rank factors with an activation between them, and a few dense columns, trained from scratch.

    y = γ B φ(A x) + (1 - γ) W_s x_I + b,   r (m + n) + |I| m numbers a layer

Paper: Li, Yin, Shen, Xu, Xu, Huang, Wang, Liu, Wang, arXiv 2508.02668; layer and start in lost_linear.py. Which values
W_s begins with, the paper leaves open; where it says that the remaining singular values make the sparse part, here
those of the rest. Two controls: gamma=1 leaves the low-rank branch alone, whose dense columns then get no gradient;
share=0 has no columns and keeps γ.

With the activation a layer is no weight matrix. The record therefore holds this network, which no other method can
start from.
"""

from typing import Any, Literal

from torch import nn

from fisherexp.config.types import AtLeastOne, Count, Pattern, Probability
from fisherexp.methods.finetuning.lost_linear import LostLinear, replace_linear
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM


class LOST(ERM):
    """rank: r. share: of columns that are dense; 0 for none. gamma: γ. activation: φ. values: of W_s at the start.
    training: the recipe. targets, exclude: which layers, as for AdapterTuning.

    outcome: under "metrics" trained_numbers, and trained_share, in % of those that the network has without it.
    """

    name = "lost"
    paper = "Li et al., 2025, arXiv 2508.02668"
    search = {"training.lr": "tag(log, interval(1e-3, 1e-1))", "gamma": "interval(0.5, 0.9)"}
    counts_with = {"targets": {"exclude": None, "targets": "^head$"}}
    headings = {"trained_numbers": "trained\nnumbers", "trained_share": "trained %"}

    def __init__(
        self,
        model: nn.Module,
        rank: Count,
        share: Probability,
        gamma: Probability,
        activation: Literal["silu", "none"],
        values: Literal["rest", "weight"],
        training: Recipe,
        targets: Pattern | AtLeastOne[str],
        exclude: Pattern | None = None,
    ) -> None:
        super().__init__(model, training)
        self.whole = sum(p.numel() for p in model.parameters())
        # Here and not before the fit: a model that is only to be evaluated has these layers, too.
        options: dict[str, Any] = {"rank": rank, "share": share, "gamma": gamma, "activation": activation}
        replace_linear(model, targets, exclude, **options, values=values)

    def on_train_end(self) -> None:
        trained = sum(p.numel() for p in self.model.parameters())
        self.outcome["metrics"] = {"trained_numbers": trained, "trained_share": 100 * trained / self.whole}
        columns = {
            n: layer.columns.tolist() for n, layer in self.model.named_modules() if isinstance(layer, LostLinear)
        }
        self.outcome["columns"] = columns
