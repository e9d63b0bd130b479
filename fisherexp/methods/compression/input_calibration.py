"""A look that sums up the inputs of layers over the whole training part."""

import sys
from collections.abc import Iterable
from typing import Any

from torch import nn

from fisherexp.data.batch import Batch
from fisherexp.methods.compression.factorization import factorizable
from fisherexp.models.eval_mode import eval_mode
from fisherexp.quantization import Collector, LayerStats
from fisherexp.scenarios.setting import Setting


class InputCalibration:
    """Statistics of the inputs of all layers that are factorized; taken, they begin anew. Padding does not count.

    full: E[x xᵀ] of each, not its diagonal alone.
    """

    def __init__(self, model: nn.Module, full: bool) -> None:
        self.model, self.names = model, list(factorizable(model))
        self.max_width = sys.maxsize if full else 0
        self.collector = Collector(model, self.names, self.max_width)

    def loaders(self, setting: Setting) -> tuple[list[Any], list[int]]:
        """What CalibrateAndTrain.to_look_at returns."""
        loader = setting.loader("train", shuffle=False)
        return [loader], [len(loader)]

    def add(self, batch: Batch) -> None:
        with eval_mode(self.model):
            self.collector.look(batch.inputs, batch.attention_mask)

    def take_layers(self, names: Iterable[str]) -> dict[str, LayerStats]:
        """Those of these layers. Raises ValueError for a layer that the model never calls."""
        found, self.collector = self.collector.stats, Collector(self.model, self.names, self.max_width)
        if uncalled := [name for name in names if name not in found]:
            raise ValueError(f"the model never calls {', '.join(uncalled)}, whose inputs are to be looked at")
        return {name: found[name] for name in names}

    def state(self) -> dict[str, Any]:
        """What was added so far, for `load`."""
        return self.collector.state()

    def load(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            self.collector.load(state)
