"""Batches as the curvature engine takes them."""

from collections.abc import Iterable
from typing import Any

from fisherexp.data.batch import Batch


def pairs(loader: Iterable[Batch]) -> list[tuple[Any, Any]]:
    """(inputs, targets) of every batch."""
    return [(batch.inputs, batch.targets) for batch in loader]
