"""TempBalance: training with a learning rate for each layer, by the exponent α of its weight spectrum.

    η_l = η_t · f_l,    f_l linear in α_l, from `low` at the smallest to `high` at the largest

The larger α, the less a layer has learnt, and the faster it may. Zhou et al., "Temperature Balancing, Layer-wise Weight
Analysis", NeurIPS 2023, arXiv 2312.00359; α of square windows, which does not feel the shape of layers: FARMS, Hu et
al., ICML 2025, arXiv 2506.06280. α is Hill's of the larger half, as published, or by another estimator (`fit`), and is
found anew before each epoch. First and last layer have the rate of the recipe.
"""

from typing import Any, Literal

from torch import nn

from fisherexp.config.types import Count, Positive
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.spectral.layer_exponents import along, exponents
from fisherexp.methods.training.erm import ERM
from fisherexp.methods.training.layer_rates import layer_groups, set_rates, weights


class TempBalance(ERM):
    """spectra: 'farms', of windows, or 'whole', of each matrix, as TempBalance. low, high: of the factors. window,
    positions: see metrics.fixed_aspect. fewest: layers with fewer rows or columns have the middle factor. fit: the
    estimator of α, see metrics.power_law.

    outcome: α and factors by layer, before each epoch. Raises ValueError for a model of fewer than three layers.
    """

    paper = "Zhou et al., NeurIPS 2023, arXiv 2312.00359; Hu et al., ICML 2025, arXiv 2506.06280"
    weighs_samples = True

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        spectra: Literal["farms", "whole"],
        low: Positive,
        high: Positive,
        window: Count | None,
        positions: Count,
        fewest: Count,
        fit: Literal["hill", "ks", "peak"],
    ) -> None:
        super().__init__(model, training)
        self.spectra, self.low, self.high = spectra, low, high
        self.options = {"window": window, "positions": positions, "fewest": fewest, "estimator": fit}
        if len(weights(model, layer_groups(model, training.lr))) < 3:
            raise ValueError(
                f"{type(model).__name__} has no layer between its first and last to have a rate of its own"
            )
        self.balanced = 0  # epochs whose rates are set
        self.outcome = {"alpha": [], "factor": []}

    def configure_optimizers(self) -> dict[str, Any]:
        groups = layer_groups(self.model, self.training_recipe.lr)
        return self.training_recipe.configure_groups(groups, self.steps_per_epoch)

    def on_train_epoch_start(self) -> None:
        if self.current_epoch < self.balanced:
            return  # goes on within an epoch, from a saved state
        groups = self.optimizers(use_pl_optimizer=False).param_groups
        _, *between, _ = weights(self.model, groups).items()
        alphas = exponents(dict(between), self.spectra, **self.options)
        factors = along(alphas, self.low, self.high)
        set_rates(self.lr_schedulers(), [self.training_recipe.lr * factors.get(group["name"], 1.0) for group in groups])
        self.balanced += 1
        self.outcome["alpha"].append(alphas)
        self.outcome["factor"].append(factors)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["balanced"], checkpoint["rates"] = self.balanced, self.outcome

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.balanced, self.outcome = checkpoint["balanced"], checkpoint["rates"]
