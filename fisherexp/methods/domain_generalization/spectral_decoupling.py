"""Spectral decoupling: small logits, so that no feature starves the others.

Paper: Pezeshki et al., NeurIPS 2021, arXiv 2011.09468, as in DomainBed (arXiv 2007.01434):  P = mean of squared logits.
It knows nothing of domains.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fisherexp.methods.domain_generalization.base import DomainMethod
from fisherexp.methods.domain_generalization.domain import Domain


def logit_penalty(domains: Sequence[Domain]) -> Tensor:
    """Mean squared logit over all samples and classes, a scalar."""
    return torch.cat([domain.logits for domain in domains]).square().mean()


class SpectralDecoupling(DomainMethod):
    """Penalize the size of the logits."""

    paper = "Pezeshki et al., NeurIPS 2021, arXiv 2011.09468"
    without_effect = {
        "penalty.over": "it knows nothing of domains",
        "penalty.detach_center": "no domain is compared with a mean",
        "penalty.terms": "there is one term",
    }

    def misalignment(self, domains: Sequence[Domain]) -> Tensor:
        return logit_penalty(domains)
