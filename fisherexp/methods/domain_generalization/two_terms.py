"""Methods that align a gradient term and a Hessian term: P = α (Hessian term) + β (gradient term)."""

from collections.abc import Sequence

from torch import Tensor, nn

from fisherexp.config.types import NonNegative
from fisherexp.methods.domain_generalization.base import DomainMethod
from fisherexp.methods.domain_generalization.domain import Domain
from fisherexp.methods.domain_generalization.gradient_alignment import gradient_penalty
from fisherexp.methods.domain_generalization.penalty import Penalty
from fisherexp.methods.recipe import Recipe


class TwoTerms(DomainMethod):
    """alpha, beta: weights of the Hessian and of the gradient term; both 1 with penalty.terms=equal."""

    by_bias = True
    counts_with = {
        "alpha": {"penalty.before": 5.0, "penalty.weight": 5.0, "penalty.terms": "own"},
        "beta": {"penalty.before": 5.0, "penalty.weight": 5.0, "penalty.terms": "own"},
    }

    def __init__(
        self, model: nn.Module, alpha: NonNegative, beta: NonNegative, training: Recipe, penalty: Penalty
    ) -> None:
        super().__init__(model, training, penalty)
        self.alpha, self.beta = (1.0, 1.0) if penalty.terms == "equal" else (alpha, beta)

    def hessian_term(self, domains: Sequence[Domain]) -> Tensor:
        """How far the domains' head Hessians are apart, a scalar."""
        raise NotImplementedError

    def gradient_term(self, domains: Sequence[Domain]) -> Tensor:
        """How far the domains' head gradients are apart, a scalar."""
        return gradient_penalty(domains, self.penalty.over)

    def misalignment(self, domains: Sequence[Domain]) -> Tensor:
        penalty = self.beta * self.gradient_term(domains)
        return penalty + self.alpha * self.hessian_term(domains) if self.alpha else penalty
