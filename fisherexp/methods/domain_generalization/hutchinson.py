"""Hutchinson: align estimates of the head Hessian's diagonal, and the head's gradients, across domains.

Paper: Hemati, Zhang, Estiri, Chen, ICCV 2023, arXiv 2308.11778. With probes z of random signs,

    D_e = (1/R) Σ_r z_r ⊙ (H_e z_r),      P = α Σ_e ||D_e - D||² + β Σ_e ||g_e - g||²,      D from H of the mean loss

The published code draws fresh probes for the mean and for every domain (probes=independent), which adds
α/R Σ_e (||off H_e||² + ||off H||²) to the expected penalty, off being the off-diagonal part; with few probes this is
most of it. With probes=shared D_e - D estimates the diagonal of H_e - H, and equal domains give zero. The diagonal
itself costs one matrix product: method=hessian_exact method.diagonal=true.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative
from fisherexp.curvature.head_gradients import probabilities, with_bias
from fisherexp.methods.domain_generalization.domain import Domain, Over, spread
from fisherexp.methods.domain_generalization.penalty import Penalty
from fisherexp.methods.domain_generalization.two_terms import TwoTerms
from fisherexp.methods.recipe import Recipe


def diagonal_estimate(domain: Domain, probes: Tensor) -> Tensor:
    """(1/R) Σ_r z_r ⊙ (H z_r), (C, d + 1), for probes (R, C, d + 1) of ±1: Hessian products in closed form."""
    inputs = with_bias(domain.features)
    p, complement = probabilities(domain.logits, domain.head)
    u = torch.einsum("nd,rcd->nrc", inputs, probes)
    if domain.head == "binary":
        su = (p * complement)[:, None] * u
    else:
        u = u - u.gather(2, domain.logits.argmax(dim=1)[:, None, None].expand(-1, len(probes), 1))
        su = p[:, None] * (u - (p[:, None] * u).sum(dim=2, keepdim=True))
    return (probes * torch.einsum("nrc,nd->rcd", su, inputs)).mean(dim=0) / len(inputs)


def hutchinson_penalty(
    domains: Sequence[Domain], probes: Sequence[Tensor], over: Over = "sum", detach: bool = False
) -> Tensor:
    """Sum or mean over domains of ||D_e - D||², a scalar. detach: no gradient through D.

    probes: the mean's, then each domain's, (R, C, d + 1) each; or one tensor, shared by all.
    """
    of_mean, *own = list(probes) * (len(domains) + 1) if len(probes) == 1 else probes
    center = torch.stack([diagonal_estimate(domain, of_mean) for domain in domains]).mean(dim=0)
    estimates = [diagonal_estimate(domain, z) for domain, z in zip(domains, own, strict=True)]
    return spread(estimates, over, center, detach)


class Hutchinson(TwoTerms):
    """count: of probes, R. probes: drawn afresh for the mean and every domain, as published, or shared."""

    paper = "Hemati et al., ICCV 2023, arXiv 2308.11778"

    def __init__(
        self,
        model: nn.Module,
        alpha: NonNegative,
        beta: NonNegative,
        count: Count,
        probes: Literal["independent", "shared"],
        training: Recipe,
        penalty: Penalty,
    ) -> None:
        super().__init__(model, alpha, beta, training, penalty)
        self.count, self.probes = count, probes

    def hessian_term(self, domains: Sequence[Domain]) -> Tensor:
        features, logits, _ = domains[0]
        shape = (self.count, logits.shape[1], features.shape[1] + 1)
        sets = 1 if self.probes == "shared" else len(domains) + 1
        probes = [2 * torch.randint(2, shape, device=features.device).to(features.dtype) - 1 for _ in range(sets)]
        return hutchinson_penalty(domains, probes, self.penalty.over, self.penalty.detach_center)
