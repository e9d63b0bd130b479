"""Hessian-gradient products: align H_e g_e and g_e of the classifier head across domains.

Paper: Hemati, Zhang, Estiri, Chen, ICCV 2023, arXiv 2308.11778. With g_e and H_e gradient and Hessian of domain e's
loss by the head, and g, H those of the mean loss,

    P = α Σ_e ||H_e g_e - H g||² + β Σ_e ||g_e - g||²

H g is not the mean of the H_e g_e. The official code obtains H g as ||g|| d||g||/d(head) by double backward, which is
undefined at g = 0; here it is a product in closed form. Sums (Colored MNIST) or means over domains (DomainBed), and
whether H g is differentiated, are options of `penalty`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fisherexp.curvature.head_hessian import head_hessian_product
from fisherexp.methods.domain_generalization.domain import Domain, Over, spread
from fisherexp.methods.domain_generalization.gradient_alignment import head_gradients
from fisherexp.methods.domain_generalization.two_terms import TwoTerms


def hgp_penalty(domains: Sequence[Domain], over: Over = "sum", detach: bool = False) -> Tensor:
    """Sum or mean over domains of ||H_e g_e - H g||², a scalar. detach: no gradient through H g."""
    gradients = head_gradients(domains)
    mean = torch.stack(gradients).mean(dim=0)
    own = [product(domain, g) for domain, g in zip(domains, gradients, strict=True)]
    center = torch.stack([product(domain, mean) for domain in domains]).mean(dim=0)
    return spread(own, over, center, detach)


def product(domain: Domain, direction: Tensor) -> Tensor:
    """The domain's head Hessian times a head matrix, (C, d + 1)."""
    return head_hessian_product(domain.features, domain.logits, direction, head=domain.head)


class HGP(TwoTerms):
    """Penalize differences of Hessian-gradient products and of gradients."""

    paper = "Hemati et al., ICCV 2023, arXiv 2308.11778"

    def hessian_term(self, domains: Sequence[Domain]) -> Tensor:
        return hgp_penalty(domains, self.penalty.over, self.penalty.detach_center)
