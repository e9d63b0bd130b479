"""Maximum mean discrepancy between the features of all pairs of domains.

Paper: Li, Pan, Wang, Kot, CVPR 2018 (MMD-AAE), without the autoencoder as in DomainBed (arXiv 2007.01434):

    P = mean over pairs e < f of  E k(x_e, x_e') + E k(x_f, x_f') - 2 E k(x_e, x_f),     k = Σ_γ exp(-γ ||x - x'||²)

Means include the pairs of a sample with itself, as there.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from fisherexp.config.types import AtLeastOne, Count, Positive
from fisherexp.methods.domain_generalization.base import DomainMethod
from fisherexp.methods.domain_generalization.domain import Domain
from fisherexp.methods.domain_generalization.penalty import Penalty
from fisherexp.methods.recipe import Recipe


def kernel(x: Tensor, y: Tensor, gammas: Sequence[float]) -> Tensor:
    """Σ_γ exp(-γ ||x_i - y_j||²), (n, m), of samples (n, d) and (m, d)."""
    squared = x.square().sum(1)[:, None] - 2 * x @ y.T + y.square().sum(1)
    squared = squared.clamp_min(0)  # rounding
    return sum(torch.exp(-gamma * squared) for gamma in gammas)


def mmd_penalty(domains: Sequence[Domain], gammas: Sequence[float]) -> Tensor:
    """Mean over pairs of domains of the squared discrepancy of their features, a scalar; 0 for one domain."""
    features = [domain.features for domain in domains]
    own = [kernel(x, x, gammas).mean() for x in features]
    distances = [
        own[e] + own[f] - 2 * kernel(features[e], features[f], gammas).mean()
        for e, f in combinations(range(len(features)), 2)
    ]
    return torch.stack(distances).mean() if distances else features[0].sum() * 0


def some_of(domain: Domain, count: int) -> Domain:
    """At most `count` samples, drawn without replacement."""
    rows = torch.randperm(len(domain.labels), device=domain.labels.device)[:count]
    return Domain(*(part[rows] for part in domain))


class MMD(DomainMethod):
    """gammas: inverse squared widths of the Gaussian kernels that are added up. samples: of a domain, at most so many
    are compared, others in every step; null for all."""

    paper = "Li et al., CVPR 2018"
    without_effect = {
        "penalty.over": "a mean over pairs of domains",
        "penalty.detach_center": "no domain is compared with a mean",
        "penalty.terms": "there is one term",
    }

    def __init__(
        self, model: nn.Module, gammas: AtLeastOne[Positive], samples: Count | None, training: Recipe, penalty: Penalty
    ) -> None:
        super().__init__(model, training, penalty)
        self.gammas, self.samples = gammas, samples

    def misalignment(self, domains: Sequence[Domain]) -> Tensor:
        if self.samples is not None:
            domains = [some_of(domain, self.samples) for domain in domains]
        return mmd_penalty(domains, self.gammas)
