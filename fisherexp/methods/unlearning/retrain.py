"""Retraining from scratch without the forgotten data: the oracle of unlearning.

    θ_r = argmin_θ  (1/|D_r|) Σ_{i ∈ D_r}  -log p_θ(y_i | x_i),   from new random weights

Differs from the official SSD code (arXiv 2308.07707), whose "retrain" resets only the direct children that
own `reset_parameters`: its ResNet keeps convolutions in nested blocks, so there only the last layer is new.
"""

from fisherexp.methods.training.erm import ERM


class Retrain(ERM):
    """Train new weights on the retained part, as `training` says."""

    paper = "Bourtoule et al., IEEE S&P 2021, arXiv 1912.03817"
    scenarios = ("forgetting",)
    fits_on = "retain"
