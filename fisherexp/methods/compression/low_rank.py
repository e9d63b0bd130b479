"""Low-rank compression of a trained model: a look, a decomposition of every layer, fine-tuning of the factors.

Every layer but the head: W ≈ rest + L R, where L R is an adapter and not formed in training. The record
holds an ordinary model, the factors merged into its weights; the run's folder keeps the factors as they are
(factors.safetensors).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from fisherexp import adapters
from fisherexp.adapters import AdaptedLayer
from fisherexp.config.types import Count
from fisherexp.data.batch import Batch
from fisherexp.files import write_atomically
from fisherexp.methods.compression.calibrate_and_train import CalibrateAndTrain
from fisherexp.methods.compression.factorization import Parts, decompose, factorize
from fisherexp.methods.compression.fisher_calibration import FisherCalibration
from fisherexp.methods.compression.input_calibration import InputCalibration
from fisherexp.methods.recipe import Recipe
from fisherexp.scenarios.setting import Setting


class LowRank(CalibrateAndTrain):
    """A method says how layers are decomposed (`decompose`).

    rank: of every layer, or None for the rank at which the factors hold `ratio` of its weights.
    calibration: what is found of the layers by looking at the whole training part; None if the method looks at nothing.
    finetune: of everything that is trained; epochs=0 for none. adapters_only: train the factors and nothing else.
    """

    start = "source"

    def __init__(
        self,
        model: nn.Module,
        rank: Count | None,
        ratio: float,
        finetune: Recipe,
        calibration: FisherCalibration | InputCalibration | None = None,
        adapters_only: bool = False,
    ) -> None:
        super().__init__(model, finetune)
        self.rank, self.ratio, self.adapters_only = rank, ratio, adapters_only
        self.calibration = calibration
        self.layers: dict[str, AdaptedLayer] = {}
        self.factors: dict[str, Tensor] = {}
        self._restored: dict[str, Any] | None = None

    def decompose(
        self, weights: Mapping[str, Tensor], ranks: Mapping[str, int], found: Mapping[str, Any] | None
    ) -> tuple[dict[str, Parts], dict[str, Any]]:
        """The parts of all weights (n, m), and more for the outcome. found: by layer, what the calibration found."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        # After the source's weights are in the model and before a saved state is.
        if stage == "fit":
            self.layers = factorize(self.model, self.rank, self.ratio)

    def to_look_at(self, setting: Setting) -> tuple[list[Any], list[int]]:
        return super().to_look_at(setting) if self.calibration is None else self.calibration.loaders(setting)

    def on_train_start(self) -> None:
        if self.calibration is not None:
            self.calibration.load(self._restored)

    def look(self, batch: Batch) -> None:
        if self.calibration is not None:
            self.calibration.add(batch)

    def edit(self, step: int, look: int) -> None:
        weights = {name: layer.matrix.detach().clone() for name, layer in self.layers.items()}
        ranks = {name: len(layer.adapters[0].down) for name, layer in self.layers.items()}
        found = None if self.calibration is None else self.calibration.take_layers(self.layers)
        parts, more = self.decompose(weights, ranks, found)
        errors = {}
        for name, layer in self.layers.items():
            decompose(layer, *parts[name])
            (adapter,) = layer.adapters
            errors[name] = (weights[name] - layer.matrix - adapter.up @ adapter.down).square().sum().item()
        self.outcome = {
            "rank_by_layer": ranks,
            "weights": sum(weight.numel() for weight in weights.values()),
            "factor_weights": adapters.num_trainable(self.model),
            "squared_error": sum(errors.values()),
            "squared_error_by_layer": errors,
            **more,
        }

    def on_train_end(self) -> None:
        for name, layer in self.layers.items():
            (adapter,) = layer.adapters
            parts = {"left": adapter.up, "right": adapter.down, "rest": layer.matrix}
            self.factors |= {f"{name}.{part}": tensor.detach().cpu().clone() for part, tensor in parts.items()}
        adapters.merge(self.model)
        for layer in self.layers.values():
            layer.weight.requires_grad_()

    def trainable(self) -> list[nn.Parameter]:
        if self.adapters_only:
            return [p for adapter in adapters.adapters(self.model) for p in adapter.parameters()]
        fixed = {id(layer.frozen_weight) for layer in self.layers.values()}
        return [p for p in super().trainable() if id(p) not in fixed]

    def leave_files(self, folder: Path) -> None:
        write_atomically(folder / "factors.safetensors", lambda temporary: save_file(self.factors, temporary))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["calibration"] = None if self.calibration is None else self.calibration.state()
        checkpoint["decomposition"] = self.outcome

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._restored, self.outcome = checkpoint["calibration"], checkpoint["decomposition"]
