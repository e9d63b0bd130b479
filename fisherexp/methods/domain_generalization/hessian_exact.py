"""Exact Hessian alignment: the Frobenius distance of the domains' head Hessians in closed form.

    P = α Σ_e ||H_e - H||_F² + β Σ_e ||g_e - g||²,      H_e, g_e: Hessian and gradient of domain e's loss by the head

The quantity that HGP and Hutchinson (Hemati, Zhang, Estiri, Chen, ICCV 2023, arXiv 2308.11778) stand in for, from
inner products over pairs of samples or of classes: no matrix with (dC)² entries, no probes, no double backward.
`diagonal` keeps the diagonals only, the limit of Hutchinson for infinitely many probes. Ours; nothing published.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from fisherexp.config.types import NonNegative
from fisherexp.curvature.head_hessian import alignment_penalty, head_hessian_diagonal
from fisherexp.methods.domain_generalization.domain import Domain, Over, spread
from fisherexp.methods.domain_generalization.penalty import Penalty
from fisherexp.methods.domain_generalization.two_terms import TwoTerms
from fisherexp.methods.recipe import Recipe


def hessian_penalty(domains: Sequence[Domain], over: Over = "sum", diagonal: bool = False) -> Tensor:
    """Sum or mean over domains of ||H_e - H||_F², or of their diagonals only; a scalar."""
    head = domains[0].head
    pairs = [(domain.features, domain.logits) for domain in domains]
    if diagonal:
        return spread([head_hessian_diagonal(*pair, head=head) for pair in pairs], over)
    penalty = alignment_penalty(pairs, head=head)
    return penalty if over == "sum" else penalty / len(domains)


class HessianExact(TwoTerms):
    """diagonal: align the Hessians' diagonals only."""

    paper = "after Hemati et al., ICCV 2023, arXiv 2308.11778"
    without_effect = {
        "penalty.detach_center": "its gradient is the same",
    }

    def __init__(
        self,
        model: nn.Module,
        alpha: NonNegative,
        beta: NonNegative,
        diagonal: bool,
        training: Recipe,
        penalty: Penalty,
    ) -> None:
        super().__init__(model, alpha, beta, training, penalty)
        self.diagonal = diagonal

    def hessian_term(self, domains: Sequence[Domain]) -> Tensor:
        return hessian_penalty(domains, self.penalty.over, self.diagonal)
