"""Synaptic intelligence: each parameter's share in the fall of the loss, summed along the path of training.

Paper: Zenke, Poole, Ganguli, ICML 2017, arXiv 1703.04200, equations 3 to 5:

    w_j = -Σ_steps g_j Δθ_j,     Ω_j ← Ω_j + w_j / ((Δ_j)² + ξ),     L(θ) = L_t(θ) + c Σ_j Ω_j (θ_j - θ*_j)²

g is the gradient before the step, Δθ what the step changed, Δ_j what the whole task did; θ* is the latest solution.
There is no factor ½; the paper's c is lambda_ here.
- g is that of the task's loss alone; van de Ven's code takes that of the whole loss, penalty included: gradient=total.
- w may be negative, and a negative Ω pushes parameters away without bound: what is below zero counts as zero.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import NonNegative, Positive
from fisherexp.methods.continual_learning.anchored import AnchoredTraining, snapshot
from fisherexp.methods.recipe import Recipe
from fisherexp.scenarios.setting import Setting


def importance(path: Tensor, moved: Tensor, xi: float) -> Tensor:
    """max(w, 0) / (Δ² + ξ), elementwise."""
    return path.clamp(min=0) / (moved.square() + xi)


class SI(AnchoredTraining):
    """xi: ξ, keeps Ω bounded where a parameter has hardly moved. gradient: whose is summed, see above."""

    paper = "Zenke, Poole, Ganguli, ICML 2017, arXiv 1703.04200"
    search = {"lambda_": "tag(log, interval(0.01, 1e4))"}
    factor = 1.0
    # The penalty takes part from the second task on, and what it changed counts in the third.
    counts_with = {"gradient": {"/scenario.tasks": ["plain", "permuted_1", "permuted_2"]}}

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        lambda_: NonNegative,
        xi: Positive,
        gradient: Literal["task", "total"],
        **options,
    ) -> None:
        super().__init__(model, training, lambda_, **options)
        self.xi, self.gradient = xi, gradient

    def on_train_start(self) -> None:
        super().on_train_start()
        if "path" not in self.memory:
            self.begin_task()

    def begin_task(self) -> None:
        start = snapshot(self.model)
        self.memory |= {"start": start, "path": {name: torch.zeros_like(p) for name, p in start.items()}}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        before = snapshot(self.model)
        super().optimizer_step(*args, **kwargs)
        pull = self._pull(before) if self.gradient == "task" else {}
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                if p.grad is not None:
                    g = p.grad - pull[name] if name in pull else p.grad
                    self.memory["path"][name] -= g * (p - before[name])

    def _pull(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        """Gradient of the penalty, λ and c included."""
        factor = 2 * self.stiffness
        return {
            name: factor * omega * (parameters[name] - one["anchor"][name])
            for one in self.memory["anchors"]
            for name, omega in one["omega"].items()
        }

    def finish_task(self, task: Setting) -> None:
        now, (start, path) = snapshot(self.model), (self.memory["start"], self.memory["path"])
        self.remember({name: importance(path[name], p - start[name], self.xi) for name, p in now.items()})
