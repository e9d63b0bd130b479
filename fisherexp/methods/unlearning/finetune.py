"""Fine-tuning on the retained data, in the hope that the rest is forgotten on the way.

    θ ← θ - η ∇ (1/|B|) Σ_{i ∈ B ⊂ D_r}  -log p_θ(y_i | x_i),   from the source model

Settings of the official SSD code (arXiv 2308.07707): 5 epochs of SGD with learning rate 0.02.
"""

from torch import nn

from fisherexp.config.types import Count, NonNegative, Positive, Probability
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM


class Finetune(ERM):
    """Train on, from the source model, on the retained part at a constant learning rate."""

    paper = "baseline of Golatkar et al., CVPR 2020, arXiv 1911.04933"
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "retain"

    def __init__(
        self, model: nn.Module, epochs: Count, lr: Positive, momentum: Probability, weight_decay: NonNegative
    ) -> None:
        recipe = Recipe(epochs, "sgd", lr, momentum, weight_decay, schedule="constant")
        super().__init__(model, recipe)
