"""Risk extrapolation: equal losses in all domains.

Paper: Krueger et al., ICML 2021, arXiv 2003.00688 (V-REx).

    P = (1/E) Σ_e (L_e - mean)²  (penalty.over=mean);   Σ_{e<f} (L_e - L_f)²  (sum: that of the Colored MNIST script)
"""

from collections.abc import Sequence

from torch import Tensor

from fisherexp.methods.domain_generalization.base import DomainMethod
from fisherexp.methods.domain_generalization.domain import Domain, Over, losses


def vrex_penalty(domains: Sequence[Domain], over: Over = "mean") -> Tensor:
    """Variance of the domains' losses, or the sum of squared differences over pairs of domains; a scalar."""
    each = losses(domains)
    variance = each.var(correction=0)
    return variance if over == "mean" else len(each) ** 2 * variance


class VREx(DomainMethod):
    """Penalize the variance of the domains' losses."""

    name = "vrex"
    paper = "Krueger et al., ICML 2021, arXiv 2003.00688"
    without_effect = {
        "penalty.detach_center": "its gradient is the same",
        "penalty.terms": "there is one term",
    }
    # Accuracies (%), mean and standard deviation over 10 restarts: README of the official code of arXiv 2109.02934.
    published = {
        "colored_mnist": {"train_accuracy": (71.7, 1.5), "target_accuracy": (67.2, 1.5), "gray_accuracy": (68.6, 2.2)}
    }

    def misalignment(self, domains: Sequence[Domain]) -> Tensor:
        return vrex_penalty(domains, self.penalty.over)
