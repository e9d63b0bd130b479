"""Low-rank compression of a trained model: a look, a decomposition of every layer, fine-tuning of the factors.

Every layer but the head: W ≈ rest + L R. The record holds an ordinary model, the factors merged into its weights; the
run's folder keeps the factors as they are (factors.safetensors).
"""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from fisherexp.config.types import Count
from fisherexp.data.batch import Batch
from fisherexp.files import write_atomically
from fisherexp.methods.compression.calibrate_and_train import CalibrateAndTrain
from fisherexp.methods.compression.fisher_calibration import FisherCalibration
from fisherexp.methods.compression.low_rank_layers import LowRankLayer, merge, put_in
from fisherexp.methods.importance import Importance
from fisherexp.methods.recipe import Recipe
from fisherexp.scenarios.setting import Setting


class LowRank(CalibrateAndTrain):
    """A method says how layers are decomposed (`decompose`).

    rank: of every layer, or None for the rank at which the factors hold `ratio` of its weights.
    importance: of the weights, over the whole training part; None if the method has no use for it.
    finetune: of everything that is trained; epochs=0 for none. adapters_only: train the factors and nothing else.
    """

    start = "source"

    def __init__(
        self,
        model: nn.Module,
        rank: Count | None,
        ratio: float,
        finetune: Recipe,
        importance: Importance | None = None,
        adapters_only: bool = False,
    ) -> None:
        super().__init__(model, finetune)
        self.rank, self.ratio, self.adapters_only = rank, ratio, adapters_only
        self.fisher = None if importance is None else FisherCalibration(model, importance)
        self.layers: dict[str, LowRankLayer] = {}
        self.factors: dict[str, Tensor] = {}
        self._restored: dict[str, Tensor] | None = None

    def decompose(self, layers: dict[str, LowRankLayer], fisher: dict[str, Tensor] | None) -> dict[str, Any]:
        """Decompose all layers, given the Fisher (n, m) of each if there is one. Returns more for the outcome."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        # After the source's weights are in the model and before a saved state is.
        if stage == "fit":
            self.layers = put_in(self.model, self.rank, self.ratio)

    def to_look_at(self, setting: Setting) -> tuple[list[Any], list[int]]:
        return super().to_look_at(setting) if self.fisher is None else self.fisher.loaders(setting)

    def on_train_start(self) -> None:
        if self.fisher is not None:
            self.fisher.load(self._restored)

    def look(self, batch: Batch) -> None:
        if self.fisher is not None:
            self.fisher.add(batch)

    def edit(self, step: int, look: int) -> None:
        whole = {name: layer.matrix.detach().clone() for name, layer in self.layers.items()}
        fisher = None
        if self.fisher is not None:
            taken = self.fisher.take()
            fisher = {name: taken[f"{name}.layer.weight"].flatten(1) for name in self.layers}
        found = self.decompose(self.layers, fisher)
        errors = {
            name: (whole[name] - layer.matrix - layer.left @ layer.right).square().sum().item()
            for name, layer in self.layers.items()
        }
        self.outcome = {
            "rank_by_layer": {name: layer.left.shape[1] for name, layer in self.layers.items()},
            "weights": sum(matrix.numel() for matrix in whole.values()),
            "factor_weights": sum(layer.left.numel() + layer.right.numel() for layer in self.layers.values()),
            "squared_error": sum(errors.values()),
            "squared_error_by_layer": errors,
            **found,
        }

    def on_train_end(self) -> None:
        for name, layer in self.layers.items():
            parts = {"left": layer.left, "right": layer.right, "rest": layer.matrix}
            self.factors |= {f"{name}.{part}": tensor.detach().cpu().clone() for part, tensor in parts.items()}
        merge(self.model, self.layers)

    def trainable(self) -> list[nn.Parameter]:
        if self.adapters_only:
            return [factor for layer in self.layers.values() for factor in (layer.left, layer.right)]
        fixed = {id(layer.layer.weight) for layer in self.layers.values()}
        return [p for p in self.model.parameters() if p.requires_grad and id(p) not in fixed]

    def leave_files(self, folder: Path) -> None:
        write_atomically(folder / "factors.safetensors", lambda temporary: save_file(self.factors, temporary))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["fisher"] = None if self.fisher is None else self.fisher.state()
        checkpoint["decomposition"] = self.outcome

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._restored, self.outcome = checkpoint["fisher"], checkpoint["decomposition"]
