"""Deep CORAL: equal means and covariances of the features in all domains.

Paper: Sun, Saenko, ECCV 2016 workshops, arXiv 1607.01719; between training domains as in DomainBed (arXiv 2007.01434):

    P = mean over pairs e < f of  ||μ_e - μ_f||² / d + ||C_e - C_f||_F² / d²,     C: unbiased covariance
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from fisherexp.methods.domain_generalization.base import DomainMethod
from fisherexp.methods.domain_generalization.domain import Domain


def coral_penalty(domains: Sequence[Domain]) -> Tensor:
    """Mean over pairs of domains of the mean squared differences of means and covariances; 0 for one domain.

    Raises:
        ValueError: a domain of one sample has no covariance.
    """
    if min(len(domain.features) for domain in domains) < 2:
        raise ValueError("CORAL needs at least two samples of every domain in a batch; raise data.batch_size")
    moments = [(domain.features.mean(dim=0), torch.cov(domain.features.T)) for domain in domains]
    distances = [
        (mean - other_mean).square().mean() + (cov - other_cov).square().mean()
        for (mean, cov), (other_mean, other_cov) in combinations(moments, 2)
    ]
    return torch.stack(distances).mean() if distances else domains[0].features.sum() * 0


class CORAL(DomainMethod):
    """Penalize differences of feature means and covariances."""

    paper = "Sun, Saenko, ECCV workshops 2016, arXiv 1607.01719"
    without_effect = {
        "penalty.over": "a mean over pairs of domains",
        "penalty.detach_center": "no domain is compared with a mean",
        "penalty.terms": "there is one term",
    }

    def misalignment(self, domains: Sequence[Domain]) -> Tensor:
        return coral_penalty(domains)
