"""Selective Synaptic Dampening: shrink the weights that matter more to the forget set than to all data.

Paper: Foster, Schoepf, Brintrup, AAAI 2024, arXiv 2308.07707. With I the diagonal empirical Fisher,

    select  S = { j : I_f[j] > α I_D[j] };   θ_j ← min(λ I_D[j] / I_f[j], 1) θ_j   for j ∈ S.

A bound the paper does not state: with per-sample gradients I_D = (|D_f| I_f + |D_r| I_r) / |D|, so that
I_f / I_D ≤ |D| / |D_f| everywhere, and α at or above that bound selects nothing. With 10 balanced classes the
bound is 10 and the published α = 10 has no effect. `alpha_relative` gives α as a share of the bound. With squared
gradients of batch means the same holds with numbers of batches for numbers of samples, provided that no batch
holds both retained and forgotten samples (importance.order=forget_apart).

Where the official code differs, and what gives its numbers:
- it squares the gradient of a batch's mean loss, in the order [retain sorted by class, forget]:
  importance.gradients=batch_mean, importance.order=by_class, and its batch size. One batch may then straddle the
  two parts, and single ratios pass the bound.
- ratios of zero to zero: a strict comparison, as there, selects none of them.
"""

from typing import Any

from torch import nn

from fisherexp.config.types import NonNegative
from fisherexp.curvature import FisherDiagonal
from fisherexp.methods.importance import FisherPass, Importance
from fisherexp.methods.needs import Curvature
from fisherexp.methods.unlearning.dampening import dampen_model, warn_if_idle


class SSD(FisherPass):
    """One epoch over the forget set for its importance, then one edit of the weights.

    alpha: selection threshold; None for alpha_relative · |D|/|D_f|. lambda_: dampening strength.
    The importance of the full training set comes from the artefact store.
    """

    paper = "Foster et al., AAAI 2024, arXiv 2308.07707"
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "forget"
    needs = (Curvature("fisher", "importance"),)
    search = {"alpha_relative": "tag(log, interval(0.05, 1))", "lambda_": "tag(log, interval(0.1, 5))"}

    def __init__(
        self,
        model: nn.Module,
        alpha: NonNegative | None,
        alpha_relative: NonNegative,
        lambda_: NonNegative,
        importance: Importance,
    ) -> None:
        super().__init__(model, importance)
        self.alpha, self.alpha_relative, self.lambda_ = alpha, alpha_relative, lambda_
        self.bound = float("nan")

    def on_train_end(self) -> None:
        super().on_train_end()
        self.bound = self.given["fisher"].count / self.fisher.count
        alpha = self.alpha_relative * self.bound if self.alpha is None else self.alpha
        self.outcome = self.edit(self.fisher, self.given["fisher"], alpha)
        warn_if_idle("SSD", self.outcome)

    def edit(self, forget: FisherDiagonal, everything: FisherDiagonal, alpha: float) -> dict[str, Any]:
        """Dampen the model in place. Returns what was selected, in numbers, by layer and in all."""
        return dampen_model(self.model, forget, everything, alpha, self.lambda_) | {"bound": self.bound}
