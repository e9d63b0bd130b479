"""Diagonal Fisher pruning: drop the weights whose removal costs least if no two of them interact.

    saliency of weight p:  w_p² (F_pp + λ) / 2,   F the diagonal Fisher at the weights as they are

Optimal Brain Damage (LeCun, Denker, Solla 1989) with the Fisher for the Hessian's diagonal; Theis et al. 2018,
arXiv 1801.05787. The other weights stay. λ > 0 orders weights without gradient by their size, and is that of M-FAC,
of which this is the case of blocks of one weight. With recomputations > 1 the Fisher is taken anew in each sub-step.
"""

from typing import Any

from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative
from fisherexp.curvature.vectors import ravel
from fisherexp.data.batch import Batch
from fisherexp.methods.compression.fisher_calibration import FisherCalibration
from fisherexp.methods.compression.pruning import Pruning, lowest
from fisherexp.methods.importance import Importance
from fisherexp.scenarios.setting import Setting


def diagonal_saliency(weights: Tensor, fisher: Tensor, damping: float) -> Tensor:
    """w² (F_pp + λ) / 2, elementwise."""
    return weights.square() * (fisher + damping) / 2


class DiagonalFisherPruning(Pruning):
    """importance: the estimator of F, over the whole training part. damping: λ. The rest as in Pruning."""

    paper = "Theis et al., 2018, arXiv 1801.05787"
    start = "source"

    def __init__(
        self, model: nn.Module, recomputations: Count, damping: NonNegative, importance: Importance, **options: Any
    ) -> None:
        super().__init__(model, recomputations=recomputations, **options)
        self.damping, self.fisher = damping, FisherCalibration(model, importance)
        self._restored: dict[str, Any] | None = None

    def to_look_at(self, setting: Setting) -> tuple[list[Any], list[int]]:
        return self.fisher.loaders(setting)

    def on_train_start(self) -> None:
        super().on_train_start()
        self.fisher.load(self._restored)

    def look(self, batch: Batch) -> None:
        self.fisher.add(batch)

    def prune(self, weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
        fisher = self.fisher.take()
        first = {id(parameter): name for name, parameter in self.model.named_parameters()}  # of its names, if shared
        diagonal = ravel({name: fisher[first[id(weight)]] for name, weight in self.weights.items()})[self.kept]
        dropped = lowest(diagonal_saliency(weights, diagonal, self.damping), count)
        return weights.index_fill(0, dropped, 0.0), dropped

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["fisher"] = self.fisher.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._restored = checkpoint["fisher"]
