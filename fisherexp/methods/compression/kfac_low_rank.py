"""Low-rank factors of the rounding error where both inputs and outputs weigh as the Fisher says: ours.

    min tr(G Δ A Δᵀ),  Δ = W - Q - B A:   S = A^½,  L = G^½

A = E[a aᵀ] and G = E[g gᵀ] are the layer's Kronecker factors (Martens, Grosse 2015, arXiv 1503.05671): half of it is
KFAC's quadratic model of the loss that rounding costs, and QERA is the case G = I. The factors are those of the source
over all training data, found as an artefact; the constant input for the bias is left out of A.
"""

from typing import Any

from torch import nn

from fisherexp.methods.compression.rounded import Corrected
from fisherexp.methods.needs import Curvature
from fisherexp.methods.structured import KroneckerFactors
from fisherexp.quantization import LayerStats, Root, psd_root


class KFACLowRank(Corrected):
    """factors: the estimator of A and G. The rest as in Corrected."""

    name = "kfac_low_rank"
    paper = "ours; Martens & Grosse, ICML 2015, arXiv 1503.05671"
    needs = (Curvature("kfac", "factors"),)
    counts_with = {"factors.approximation": {"/model": "small_cnn"}}

    def __init__(self, model: nn.Module, factors: KroneckerFactors, **options: Any) -> None:
        super().__init__(model, **options)
        self.factors = factors

    def roots(self, name: str, stats: LayerStats) -> tuple[Root | None, Root | None]:
        factor = self.given["kfac"].factors.get(f"{name}.weight")
        if factor is None:
            raise ValueError(f"{name} has no Kronecker factors: leave it out by method.exclude")
        a = factor.a if factor.bias is None else factor.a[:-1, :-1]
        return psd_root(a), psd_root(factor.b)
