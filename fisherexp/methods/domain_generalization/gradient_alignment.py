"""Equal gradients of the head in all domains: the first-order half of Hessian alignment, alone.

Paper: Hemati, Zhang, Estiri, Chen, ICCV 2023, arXiv 2308.11778 (their ablation with alpha = 0). With g_e the gradient
of domain e's loss by the head (weights and bias),

    P = Σ_e ||g_e - mean g||²

With mini-batches the expectation of P holds the gradients' sampling variance besides, which shrinks gradients.
"""

from collections.abc import Sequence

from torch import Tensor

from fisherexp.curvature.head_gradients import head_gradient_mean
from fisherexp.methods.domain_generalization.base import DomainMethod
from fisherexp.methods.domain_generalization.domain import Domain, Over, spread


def head_gradients(domains: Sequence[Domain]) -> list[Tensor]:
    """The gradient of each domain's mean loss by the head, (C, d + 1) each, bias last."""
    return [head_gradient_mean(*domain, head=domain.head) for domain in domains]


def gradient_penalty(domains: Sequence[Domain], over: Over = "sum") -> Tensor:
    """Sum or mean over domains of the squared distances of head gradients from their mean, a scalar."""
    return spread(head_gradients(domains), over)


class GradientAlignment(DomainMethod):
    """Penalize differences of the head's gradient between domains."""

    by_bias = True
    paper = "Hemati et al., ICCV 2023, arXiv 2308.11778"
    without_effect = {
        "penalty.detach_center": "its gradient is the same",
        "penalty.terms": "there is one term",
    }

    def misalignment(self, domains: Sequence[Domain]) -> Tensor:
        return gradient_penalty(domains, self.penalty.over)
