"""What a sweep of the engine feeds: squared sums, norms, second moments, Kronecker factors."""

from collections.abc import Callable, Iterable
from typing import Protocol

from torch import Tensor

from .rules import Use
from .tape import Tape

Seeds = Callable[[Tensor], Iterable[Tensor]]


class Consumer(Protocol):
    """What a sweep feeds. Gradients arrive in backward order."""

    def begin(self, tape: Tape) -> None:
        """The forward pass is over; `tape.uses` is complete."""

    def receive(self, use: Use, g: Tensor) -> None:
        """One use of a parameter and the gradient of its result (samples where the layout says)."""

    def end(self) -> None:
        """A backward pass is over; called once per seed vector."""

    def one_by_one(self, names: list[str], index: int, gradients: list[Tensor]) -> None:
        """Whole gradients of sample `index`, for parameters that no rule could follow."""

    def trial(self) -> "Consumer":
        """A consumer of the same kind for a batch that is being verified."""

    def accept(self, trial: "Consumer") -> None:
        """Add what `trial`, the latest, was fed."""

    def reject(self, trial: "Consumer") -> None:
        """Forget what `trial`, the latest, was fed."""
