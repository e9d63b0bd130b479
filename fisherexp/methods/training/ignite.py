"""IGNITE: a surrogate whose mean output moves little with its weights, so that climbing it fools less.

    min_β  L(β)   subject to   ρ ‖∇_β mean_i h_β(x_i)‖ ≤ ε,      λ ← max(0, λ + η_λ (ρ ‖∇G‖ - ε)) after each step

Dao, Hoang et al., NeurIPS 2024, arXiv 2503.04242; the gradient of the norm: gradient_norm.py. With a fixed λ
(multiplier_lr=0) it is IGNITE-2. The authors' code lets λ become negative, which rewards what it is to keep small.
"""

from typing import Any

from torch import Tensor

from fisherexp.config.types import NonNegative, Positive
from fisherexp.methods.training.design_ascent import DesignAscent
from fisherexp.methods.training.gradient_norm import gradient_norm_gradient
from fisherexp.methods.training.surrogate import surrogate_loss


class Ignite(DesignAscent):
    """rho: ρ. radius: of the finite difference. bound: ε. multiplier: λ at first; multiplier_lr: η_λ, 0 keeps it.
    below_zero: let λ become negative, as the authors' code does. Further options: see DesignAscent.

    Metrics also: multiplier, λ at the end.
    """

    name = "ignite"
    paper = "Dao, Hoang et al., NeurIPS 2024, arXiv 2503.04242"
    headings = {
        "surrogate_mse": "MSE of the\nsurrogate",
        "output_gradient_norm": "‖∇ mean\noutput‖",
        "multiplier": "multiplier",
    }
    state = ("multiplier",)
    counts_with = {"below_zero": {"bound": 100.0, "multiplier_lr": 0.1}}

    def __init__(
        self,
        rho: NonNegative = 0.05,
        radius: Positive = 0.05,
        bound: NonNegative = 0.1,
        multiplier: NonNegative = 1e-3,
        multiplier_lr: NonNegative = 1e-3,
        below_zero: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.rho, self.radius, self.bound = rho, radius, bound
        self.multiplier, self.multiplier_lr, self.below_zero = multiplier, multiplier_lr, below_zero

    def set_gradients(self, designs: Tensor, values: Tensor) -> dict[str, float]:
        loss = surrogate_loss(self.network, designs, values, self.loss)
        loss.backward()
        penalty, size = gradient_norm_gradient(self.network, designs, self.radius)
        parameters = dict(self.network.named_parameters())
        for name, gradient in penalty.items():
            parameters[name].grad.add_(gradient, alpha=self.multiplier * self.rho)
        figures = {"loss": loss.item(), "output_gradient_norm": size.item(), "multiplier": self.multiplier}
        moved = self.multiplier + self.multiplier_lr * (self.rho * size.item() - self.bound)
        self.multiplier = moved if self.below_zero else max(0.0, moved)
        return figures

    def metrics(self) -> dict[str, float]:
        return super().metrics() | {"multiplier": self.multiplier}
