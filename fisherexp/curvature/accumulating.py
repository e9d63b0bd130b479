"""What every accumulator of curvature answers, and the loop that fills one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .inputs import parts_of

LARGEST = ("batch_size", "batches")  # of `sums`: over ranks the maximum counts, of all others the sum


class Accumulator(Protocol):
    """generator: what labels are drawn from; None for an accumulator that draws none."""

    generator: torch.Generator | None

    def update(self, inputs: Any, targets: Tensor | None = None, weights: Tensor | None = None) -> None:
        """Add one batch. Raises ValueError for weights where samples cannot be weighted."""

    def sums(self) -> dict[str, Tensor]:
        """The state as plain tensors, not copied: to be reduced over ranks (see LARGEST) or stored."""

    def load_sums(self, state: Mapping[str, Tensor]) -> None:
        """Replace the state by what `sums` returned. Raises ValueError where it does not fit."""

    def result(self) -> Any:
        """The curvature of everything added so far. Raises ValueError where nothing was."""


def accumulate(
    accumulator: Accumulator,
    batches: Iterable,
    inputs: Sequence[str] | Callable[[Any], Any] | None = None,
    targets: str | Callable[[Any], Any] = "labels",
) -> Any:
    """The accumulator itself, after all `batches`; what they are, `inputs` and `targets`: see `parts_of`."""
    for batch in batches:
        accumulator.update(*parts_of(batch, inputs, targets))
    return accumulator


def refuse_weights(accumulator: Accumulator, weights: Tensor | None) -> None:
    """Raise ValueError where there are weights."""
    if weights is not None:
        raise ValueError(f"{type(accumulator).__name__} cannot weight samples; DiagonalAccumulator can")
