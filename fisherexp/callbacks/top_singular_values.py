"""The largest singular value of each weight matrix along a training: whether, and where, it settles."""

from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule, Trainer

from fisherexp.adapters.layers import adapted_kind
from fisherexp.adapters.targets import layer_names
from fisherexp.callbacks.watcher import Watcher
from fisherexp.config.types import Count, Pattern
from fisherexp.metrics.top_singular_value import top_singular_value


class TopSingularValues(Watcher):
    """Looks at linear, convolutional and embedding layers behind every epoch.

    AdamW at a constant rate η takes a matrix to a steady state in about 1/(ηλ) steps: measure behind several times as
    many. Widths compare if values of corresponding layers do (see methods/parameter_groups.py).

    In the record: outcome.top_singular_values holds a list for each layer, a value an epoch; among the metrics are
    top_singular_value, the mean over layers behind the last epoch, and top_singular_drift, by how much of itself that
    mean changed over the last quarter of the epochs.

    steps: of the power iteration. targets, exclude: which layers, as fisherexp.adapters has it.
    """

    watches_fit = True
    headings: ClassVar[dict[str, str]] = {"top_singular_value": "top\nsingular", "top_singular_drift": "drift"}

    def __init__(self, steps: Count = 20, targets: Pattern = ".", exclude: Pattern | None = "^head$") -> None:
        self.steps, self.targets, self.exclude = steps, targets, exclude
        self.values: dict[str, list[float]] = {}

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: object) -> None:
        # Before the epoch's end, where the training state is saved: a resumed run has every look.
        if trainer.is_last_batch:
            for name in layer_names(module.model, self.targets, self.exclude):
                layer = module.model.get_submodule(name)
                matrix = adapted_kind(layer).to_matrix(layer._parameters["weight"].detach())
                self.values.setdefault(name, []).append(top_singular_value(matrix, self.steps))

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.values:
            metrics = module.outcome.get("metrics", {}) | summary(self.values)
            module.outcome |= {"metrics": metrics, "top_singular_values": self.values}
            self.values = {}

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values = state["values"]


def summary(values: dict[str, list[float]]) -> dict[str, float]:
    """The two metrics of values by layer, an entry an epoch."""
    means = torch.tensor([*values.values()], dtype=torch.float64).mean(0)
    before = means[(3 * len(means) - 1) // 4]
    return {"top_singular_value": means[-1].item(), "top_singular_drift": (means[-1] / before - 1).item()}
