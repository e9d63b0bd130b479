"""EKFAC: K-FAC whose eigenvalues are replaced by the gradients' true second moments along its eigenvectors.

    F ≈ (U ⊗ V) S (U ⊗ V)ᵀ,   S_ij = mean over samples n of (Uᵀ G_n V)_ij²

George, Laurent, Bouthillier, Ballas, Vincent, NeurIPS 2018, arXiv 1806.03884. S is the best diagonal in that basis
(in Frobenius norm), found from each sample's gradient with the labels that the factors are of, and averaged as they
are; with new eigenvectors it begins anew, from K-FAC's eigenvalues, which count as one observation: those of a single
batch leave directions without any. Else as K-FAC.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fisherexp.curvature import PerSampleGradients
from fisherexp.data.batch import Batch
from fisherexp.methods.optimizers.k_fac import KFAC, KroneckerOptimizer


class EigenvalueCorrectedOptimizer(KroneckerOptimizer):
    """As KroneckerOptimizer; `observe_samples` comes behind each `observe`."""

    @torch.no_grad()
    def observe_samples(self, rows: Mapping[str, Tensor]) -> None:
        """Take gradients (N, *shape) of the same samples, by parameter name, into the running second moments."""
        (group,) = self.param_groups
        for layer, state in self.layers():
            names = [n for n in (layer.weight, layer.bias) if n is not None]
            inside = state["u"].mT @ torch.vmap(layer.matrix)({n: rows[n] for n in names}) @ state["v"]
            moments = inside.square().mean(0)
            since = (state["observed"] - 1) % group["inverse_every"]  # observations in this basis before this one
            state["scales"] = state["scales"].lerp(moments, 1 - min(1 - 1 / (since + 2), group["decay"]))


class EKFAC(KFAC):
    """Options: see KFAC."""

    name = "ekfac"
    paper = "George et al., NeurIPS 2018, arXiv 1806.03884"
    optimizer_class = EigenvalueCorrectedOptimizer

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.gradients = PerSampleGradients(self.model, labels=self.labels, loss=self.objective.likelihood)

    def observe(self, batch: Batch, seed: int) -> None:
        super().observe(batch, seed)
        self.gradients.generator.manual_seed(seed)
        rows = self.gradients(batch.inputs, batch.targets).rows()
        self.optimizers(use_pl_optimizer=False).observe_samples(rows)
