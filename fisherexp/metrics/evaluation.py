"""The face of every metric a model is evaluated by."""

from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric


class Evaluation(Metric):
    """Fed batch by batch with what a model makes of named parts of the data; answers metrics by name.

    headings: metric -> its heading, for those that tables show; a "%" in it means one decimal.
    better: metric -> 'higher' or 'lower', for those of which an extreme is the goal.
    raw_outputs: it is fed with outputs that are no logits (see ModelMethod); what takes their softmax for probabilities
        is left out.
    """

    full_state_update = False
    headings: dict[str, str] = {}
    better: dict[str, str] = {}
    raw_outputs = False

    def update(self, part: int, outputs: Tensor, targets: Tensor) -> None:
        """outputs, targets: of a batch of the part of this number."""
        raise NotImplementedError

    def ask(self, part: int, model: nn.Module, batch: Any) -> None:
        """Ask the model itself for more than its outputs; by default nothing."""

    def compute(self) -> dict[str, float]:
        raise NotImplementedError

    def predictions(self) -> dict[str, Tensor]:
        """What the last `compute` keeps for comparisons with other models, by name; by default nothing."""
        return {}
