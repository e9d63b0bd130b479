"""Isotropic merging: the mean of the experts' weights.

    θ = Σ_k c_k θ_k,   Σ_k c_k = 1

As in model soups (Wortsman et al., ICML 2022, arXiv 2203.05482) and as the baseline of Fisher merging, which may draw
its coefficients, too (see fisher_merging.py).
"""

from typing import Any

from fisherexp.config.types import Size
from fisherexp.methods.merging.coefficients import coefficients
from fisherexp.methods.merging.merging import Merging, State, mean_of


class Average(Merging):
    """draws: sets of coefficients to try besides equal ones."""

    paper = "Wortsman et al., ICML 2022, arXiv 2203.05482"

    def __init__(self, draws: Size = 0, **options: Any) -> None:
        super().__init__(**options)
        self.draws = draws

    def grid(self) -> list[dict[str, Any]]:
        return [{"weights": weights} for weights in coefficients(len(self.given["experts"]), self.draws)]

    def merged(self, base: State, models: list[State], weights: list[float]) -> State:
        return mean_of(models, weights)

    merged_buffers = merged
