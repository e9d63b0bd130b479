"""Inter-domain gradient alignment: equal gradients of all parameters in all domains.

Paper: Koyama, Yamaguchi 2020, arXiv 2008.01883, as in DomainBed (arXiv 2007.01434). With g_e the gradient of domain
e's loss by all parameters,

    P = Σ_e ||g_e - mean g||²,      mean g not differentiated
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fisherexp.methods.domain_generalization.base import DomainMethod
from fisherexp.methods.domain_generalization.domain import Domain, losses, spread
from fisherexp.ranks import mean_over_ranks


def iga_penalty(each: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Sum over domains of squared distances of gradients from their mean, a scalar.

    each: the domains' losses (E,), functions of `parameters`, of which those without influence are passed over. With
    several ranks, losses of all samples; a rank differentiates them through its own share alone.
    """
    gradients = [torch.autograd.grad(loss, list(parameters), create_graph=True, allow_unused=True) for loss in each]
    flat = [torch.cat([part.flatten() for part in gradient if part is not None]) for gradient in gradients]
    return spread([mean_over_ranks(gradient) for gradient in flat], detach=True)


class IGA(DomainMethod):
    """Penalize differences of the whole model's gradients, by double backward."""

    paper = "Koyama, Yamaguchi 2020, arXiv 2008.01883"
    without_effect = {
        "penalty.over": "a sum over domains, as published",
        "penalty.detach_center": "never differentiated, as published",
        "penalty.terms": "there is one term",
    }

    def misalignment(self, domains: Sequence[Domain]) -> Tensor:
        return iga_penalty(losses(domains), [p for p in self.model.parameters() if p.requires_grad])
