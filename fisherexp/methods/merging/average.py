"""Isotropic merging: the mean of the experts' weights.

    θ = Σ_k c_k θ_k,   Σ_k c_k = 1

As in model soups (Wortsman et al., ICML 2022, arXiv 2203.05482) and as the baseline of Fisher merging, which may draw
its coefficients, too (see fisher_merging.py).
"""

from fisherexp.methods.merging.merging import State, mean_of
from fisherexp.methods.merging.weighted_merging import WeightedMerging


class Average(WeightedMerging):
    """Options are those of WeightedMerging."""

    paper = "Wortsman et al., ICML 2022, arXiv 2203.05482"

    def merged(self, base: State, models: list[State], weights: list[float]) -> State:
        return mean_of(models, weights)
