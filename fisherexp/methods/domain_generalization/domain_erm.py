"""Plain training on several domains, each counted alike: the baseline of this wing.

    min_θ  (1/E) Σ_e (1/n_e) Σ_{i ∈ e} -log p_θ(y_i | x_i)

With domains of equal size, this is ERM on the pooled samples.
"""

from fisherexp.methods.domain_generalization.base import DomainMethod
from fisherexp.methods.domain_generalization.penalty import L2_ALONE


class DomainERM(DomainMethod):
    """Of `penalty` only l2 has a say."""

    penalizes = False
    without_effect = L2_ALONE
    paper = "Vapnik, NeurIPS 1991"
    # Accuracies (%), mean and standard deviation over 10 restarts: README of the official code of arXiv 2109.02934.
    published = {
        "colored_mnist": {"train_accuracy": (86.4, 0.2), "target_accuracy": (14.0, 0.7), "gray_accuracy": (71.0, 0.7)}
    }
