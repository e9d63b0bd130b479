"""Training whose outcome is a model as its entropy-coded file decodes."""

from pathlib import Path
from typing import Any

from torch import nn

from fisherexp.config.types import Size
from fisherexp.files import write_atomically
from fisherexp.methods.compression.entropy_coding import coded, round_to_grid
from fisherexp.methods.compression.generalized_gaussian import estimated_shape
from fisherexp.methods.compression.multiply_adds import multiply_adds
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.scenarios.setting import Setting


class CodedTraining(ERM):
    """At the end parameters are rounded to multiples of 2^-fraction_bits. Left in the run's folder: weights.golomb, the
    model as `entropy_coding` stores it; what is evaluated is what that file decodes to.

    outcome: under "metrics" stored_bytes, of the file; bits_per_weight, of the file over all parameters; shape, of the
        generalized Gaussian before rounding; multiply_adds for one sample; zeros, the share of parameters that are, %.
    """

    weighs_samples = True
    headings = {"stored_bytes": "stored\nbytes", "multiply_adds": "multiply\nadds"}
    better = {"stored_bytes": "lower", "multiply_adds": "lower"}

    def __init__(self, model: nn.Module, training: Recipe, fraction_bits: Size) -> None:
        super().__init__(model, training)
        self.fraction_bits = fraction_bits
        self.setting: Setting | None = None

    def stored(self) -> nn.Module:
        """What the file holds. As it stands, the model."""
        return self.model

    def batches(self, setting: Setting) -> Any:
        self.setting = setting
        return super().batches(setting)

    def on_train_end(self) -> None:
        whole = self.stored()
        shape = estimated_shape(whole.parameters())
        round_to_grid(whole, self.fraction_bits)
        size = len(coded(whole, self.fraction_bits))
        count = sum(parameter.numel() for parameter in whole.parameters())
        inputs = next(iter(self.setting.loader(self.fits_on))).inputs
        by_layer = multiply_adds(self.model, inputs)
        self.outcome["metrics"] = {
            "stored_bytes": size,
            "bits_per_weight": 8 * size / count,
            "shape": shape,
            "multiply_adds": sum(by_layer.values()),
            "zeros": 100 * sum(int((p == 0).sum()) for p in whole.parameters()) / count,
        }
        self.outcome["multiply_adds_by_layer"] = by_layer

    def leave_files(self, folder: Path) -> None:
        # Weights that were found and not trained here are on the grid, too.
        stored = coded(self.stored(), self.fraction_bits)
        write_atomically(folder / "weights.golomb", lambda temporary: temporary.write_bytes(stored))
