"""A look that takes the diagonal Fisher of the whole training part."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from fisherexp.curvature import DiagonalAccumulator, FisherDiagonal
from fisherexp.data.batch import Batch
from fisherexp.methods.importance import Importance
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import derive


class FisherCalibration:
    """Accumulates the Fisher of `model` as `importance` says; taken, it begins anew."""

    def __init__(self, model: nn.Module, importance: Importance) -> None:
        self.model, self.importance = model, importance
        self.seed, self.likelihood = 0, "cross_entropy"  # the seed is that of sampled labels
        self._accumulator: DiagonalAccumulator | None = None

    def loaders(self, setting: Setting) -> tuple[list[Any], list[int]]:
        """What CalibrateAndTrain.to_look_at returns."""
        self.seed, self.likelihood = derive("labels", setting.seed, "train"), setting.data.objective.likelihood
        loader = self.importance.batches(setting, "train")
        return [loader], [len(loader)]

    @property
    def accumulator(self) -> DiagonalAccumulator:
        """Made when first asked for: by then the model is where it computes."""
        if self._accumulator is None:
            self._accumulator = self.importance.accumulator(self.model, self.seed, self.likelihood)
        return self._accumulator

    def add(self, batch: Batch) -> None:
        self.accumulator.update(batch.inputs, batch.targets, batch.weights)

    def take(self) -> FisherDiagonal:
        """The Fisher of all that was added since the last time."""
        fisher, self._accumulator = self.accumulator.result(), None
        return fisher

    def take_layers(self, names: Iterable[str]) -> dict[str, Tensor]:
        """That of the weights of these layers alone, as matrices (n, m)."""
        taken = self.take()
        return {name: taken[f"{name}.weight"].flatten(1) for name in names}

    def state(self) -> dict[str, Any] | None:
        """What was added so far and what labels are drawn from next, for `load`; None for nothing."""
        if self._accumulator is None:
            return None
        sums = {name: total.clone() for name, total in self._accumulator.sums().items()}
        return {"sums": sums, "labels": self._accumulator.generator.get_state()}

    def load(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            self.accumulator.load_sums(state["sums"])
            self.accumulator.generator.set_state(state["labels"].cpu())
