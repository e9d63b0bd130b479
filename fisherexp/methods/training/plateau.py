"""Lower a learning rate where a loss has stopped falling, end where it has for long, and keep the best weights.

The rule of Self-Tuning Networks (MacKay et al., ICLR 2019, arXiv 1903.03088, as in the authors' code), whose first half
is that of AWD-LSTM (Merity, Keskar, Socher, ICLR 2018, arXiv 1708.02182).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

FACTOR, SMALLEST_RATE = 0.1, 1e-5


def stands_still(losses: Sequence[float], window: int) -> bool:
    """Whether the newest loss is above the least of all but the last `window`, the newest among these."""
    return len(losses) > window and losses[-1] > min(losses[:-window])


class Plateau:
    """window: of `stands_still`, in epochs. patience: epochs without a new least loss after which it is `over`.

    losses: all so far. lowered: the epochs, from zero, behind which the rate was multiplied by FACTOR. best: the
    weights of the least loss, copied.
    """

    def __init__(self, window: int, patience: int) -> None:
        self.window, self.patience = window, patience
        self.losses: list[float] = []
        self.lowered: list[int] = []
        self.best: dict[str, Tensor] = {}

    @property
    def best_epoch(self) -> int:
        """The first of the least loss, from zero."""
        return self.losses.index(min(self.losses))

    @property
    def over(self) -> bool:
        return len(self.losses) - 1 - self.best_epoch >= self.patience

    def take(self, loss: float, weights: Mapping[str, Tensor]) -> bool:
        """The loss of an epoch and the weights that have it; says whether the rate is to be lowered."""
        self.losses.append(loss)
        if self.best_epoch == len(self.losses) - 1:
            self.best = {name: value.detach().clone() for name, value in weights.items()}
        if stands_still(self.losses, self.window):
            self.lowered.append(len(self.losses) - 1)
        return self.lowered[-1:] == [len(self.losses) - 1]

    def state(self) -> dict[str, Any]:
        return {"losses": list(self.losses), "lowered": list(self.lowered), "best": self.best}

    def load(self, state: Mapping[str, Any]) -> None:
        self.losses, self.lowered, self.best = list(state["losses"]), list(state["lowered"]), state["best"]
