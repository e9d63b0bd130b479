"""CMA, closed-form moment alignment: equal gradients and exact Hessians of the head, weighted by domain size.

Paper: Chen, Si, Zhang, Zhao, UAI 2025, arXiv 2506.07378, as in the authors' code for linear probing; their DomainBed
class and its search ranges could not be read. With f_e the share of the samples that lie in domain e, and g_e, H_e
gradient and Hessian of its mean loss by the head's weight W (C, d), without the bias,

    min_θ  Σ_e f_e (L_e + α ||H_e - mean H||_F² + β ||g_e - mean g||²)

With domains of one size it is hessian_exact without the bias. Their code forms the dC×dC matrices, here they stay inner
products (curvature/head_hessian.py); it calls the gradient's weight α and the Hessian's β, the reverse of this wing's
names; it divides g_e by √d and H_e by dC (`scaled`); and of the gradient only the row of class 0 enters its penalty
(`gradient=official`): with two classes half of the whole, which is what the one row of a sigmoid's head is anyway.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import NonNegative
from fisherexp.curvature.head_gradients import head_gradient_mean
from fisherexp.curvature.head_hessian import frobenius_gram
from fisherexp.data.composite import SideBySide
from fisherexp.methods.domain_generalization.domain import Domain, losses
from fisherexp.methods.domain_generalization.penalty import Penalty
from fisherexp.methods.domain_generalization.two_terms import TwoTerms
from fisherexp.methods.recipe import Recipe
from fisherexp.scenarios.setting import Setting


def shares(domains: Sequence[Domain], sizes: Sequence[int] | None = None) -> Tensor:
    """The share of all samples that lie in each domain, (E,). sizes: of whole domains of which these are batches."""
    sizes = domains[0].logits.new_tensor(sizes or [len(domain.labels) for domain in domains])
    return sizes / sizes.sum()


def gradient_distances(domains: Sequence[Domain], rows: slice = slice(None)) -> Tensor:
    """||g_e - mean g||² of each domain, (E,). rows: of the gradient (C, d), the classes that are compared."""
    gradients = [head_gradient_mean(*domain, head=domain.head, bias=False)[rows] for domain in domains]
    stacked = torch.stack(gradients).flatten(1)
    return (stacked - stacked.mean(dim=0)).square().sum(dim=1)


def hessian_distances(domains: Sequence[Domain]) -> Tensor:
    """||H_e - mean H||_F² of each domain, (E,)."""
    pairs = [(domain.features, domain.logits) for domain in domains]
    return frobenius_gram(pairs, head=domains[0].head, bias=False, centered=True).diagonal()


class CMA(TwoTerms):
    """scaled: g_e / √d and H_e / dC, as the code has it. gradient: all of its rows, or the official first one."""

    by_bias = False
    paper = "Chen, Si, Zhang, Zhao, UAI 2025, arXiv 2506.07378"
    counts_with = {
        "scaled": {"penalty.before": 5.0, "penalty.weight": 5.0},
        "gradient": {"/data": "digits", "penalty.before": 5.0, "penalty.weight": 5.0},
    }
    without_effect = {"penalty.detach_center": "the mean is always differentiated"}

    def __init__(
        self,
        model: nn.Module,
        alpha: NonNegative,
        beta: NonNegative,
        scaled: bool,
        gradient: Literal["whole", "official"],
        training: Recipe,
        penalty: Penalty,
    ) -> None:
        super().__init__(model, alpha, beta, training, penalty)
        self.scaled = scaled
        self.rows = slice(1) if gradient == "official" else slice(None)
        self.sizes: list[int] | None = None

    def batches(self, setting: Setting) -> SideBySide:
        # Batches are of one size, whatever the domains'.
        self.sizes = setting.parts["domains"].tags["domain"].bincount().tolist()
        return super().batches(setting)

    def risk(self, domains: Sequence[Domain]) -> Tensor:
        return shares(domains, self.sizes) @ losses(domains)

    def hessian_term(self, domains: Sequence[Domain]) -> Tensor:
        entries = domains[0].features.shape[1] * domains[0].logits.shape[1]
        return self._over(domains, hessian_distances(domains)) / (entries**2 if self.scaled else 1)

    def gradient_term(self, domains: Sequence[Domain]) -> Tensor:
        d = domains[0].features.shape[1]
        return self._over(domains, gradient_distances(domains, self.rows)) / (d if self.scaled else 1)

    def _over(self, domains: Sequence[Domain], distances: Tensor) -> Tensor:
        """Their mean by the domains' shares; penalty.over=sum: E times that, the sum where domains are alike."""
        mean = shares(domains, self.sizes) @ distances
        return mean if self.penalty.over == "mean" else len(domains) * mean
