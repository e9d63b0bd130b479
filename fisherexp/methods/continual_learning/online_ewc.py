"""Online EWC: one running Fisher and one anchor, however many tasks there were.

Paper: Schwarz et al., ICML 2018, arXiv 1805.06370:

    L(θ) = L_t(θ) + λ/2 Σ_j F~_j (θ_j - θ*_j)²,     F~ ← γ F~ + F_t,     θ* the latest solution

With γ = 1 F~ is the sum of all Fishers. Van de Ven's code multiplies by γ once more in the penalty itself; here γ acts
when a task is added, only, as in the paper.
"""

from torch import nn

from fisherexp.config.types import NonNegative, Probability
from fisherexp.methods.continual_learning.anchored import snapshot
from fisherexp.methods.continual_learning.ewc import EWC
from fisherexp.methods.importance import Importance
from fisherexp.methods.recipe import Recipe
from fisherexp.scenarios.setting import Setting


class OnlineEWC(EWC):
    """gamma: what is left of the running Fisher when a task is added. The others as for EWC."""

    paper = "Schwarz et al., ICML 2018, arXiv 1805.06370"
    counts_with = {"gamma": {"/scenario.tasks": ["plain", "permuted_1", "permuted_2"]}}  # before the third all is new

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        importance: Importance,
        lambda_: NonNegative,
        gamma: Probability,
        **options,
    ) -> None:
        super().__init__(model, training, importance, lambda_, **options)
        self.gamma = gamma

    def finish_task(self, task: Setting) -> None:
        omega = dict(self.fisher(task).items())
        for old in self.memory["anchors"]:
            omega = {name: self.gamma * old["omega"][name] + new for name, new in omega.items()}
        self.memory["anchors"] = [{"omega": omega, "anchor": snapshot(self.model)}]
