"""Which way a forward pass took: what it must share with an earlier one for that one's verification to hold.

Two passes took the same way if their parameters were met by the same functions with tensors of the same shapes, if
the graph behind the outputs has the same operations over the same axes, and if operations that move rows (indexing,
gathering, sorting) were given the same indices.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .layout import Step, UnknownLayout

# Operations whose integer arguments decide which row of the result is whose.
_MOVING = {
    *("GatherBackward0", "IndexBackward0", "IndexAddBackward0", "IndexCopyBackward0", "IndexFillBackward0"),
    *("IndexPutBackward0", "IndexSelectBackward0", "MaskedScatterBackward0", "MaskedSelectBackward0"),
    *("PackPaddedSequenceBackward0", "PutBackward0", "ScatterBackward0", "ScatterBackward1", "ScatterAddBackward0"),
    *("ScatterReduceBackward0", "SortBackward0", "SortBackward1", "TakeBackward0", "TopkBackward0"),
}


_AXES = {"dim", "dim0", "dim1", "dim2", "dims", "dimension", "start", "end", "step", "size", "stride", "split_size"}
_AXES |= {"shifts", "repeats", "pad", "offset", "diagonal", "storage_offset", "self_sym_sizes"}


class Path(NamedTuple):
    """A hash of functions, parameters and shapes, the indices, and the layout with which a forward pass was read."""

    key: int
    indices: list[Tensor]
    steps: list[Step | UnknownLayout]

    def moves_rows(self) -> bool:
        """Whether rows of the batch may be chosen or ordered by their values."""
        return bool(self.indices)

    def same_indices(self, others: list[Tensor]) -> bool:
        """Whether `others` are the indices of this pass."""
        if len(self.indices) != len(others):
            return False
        return all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(self.indices, others, strict=True))


def _indices_of(node: Any) -> list[Tensor]:
    """Indices and masks of one operation; none where x[arange(N), …] chooses inside every row."""
    found = []
    for name in dir(node):
        if name.startswith("_saved_"):
            saved = getattr(node, name)
            found += saved if isinstance(saved, (tuple, list)) else [saved]
    found = [t for t in found if isinstance(t, Tensor) and not (t.is_floating_point() or t.is_complex())]
    if found and node.__class__.__name__ == "IndexBackward0" and getattr(node, "_saved_indices", [None])[0] is not None:
        rows = found[0]
        if rows.dim() == 1 and len(rows) > 1 and torch.equal(rows, torch.arange(len(rows), device=rows.device)):
            return []
    return found


@cache
def _axes_of(kind: type) -> list[str]:
    """What operations of one kind remember of axes and sizes."""
    known = {*_AXES, "index"} if kind.__name__.startswith("Select") else _AXES  # elsewhere an index is a tensor
    return [name for name in dir(kind) if name.removeprefix("_saved_") in known]


def path_of(outputs: Tensor, trail: list[tuple], indices: list[Tensor], steps: list, *more: Any) -> Path:
    """The path to `outputs`. trail, indices: as the tape noted them; more: whatever else tells passes apart."""
    classes, found, seen = [], list(indices), set()
    stack = [outputs.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        kind = node.__class__
        classes.append(kind)
        classes += [getattr(node, name) for name in _axes_of(kind)]
        if kind.__name__ in _MOVING:
            found += _indices_of(node)
        for following, _ in node.next_functions:
            stack.append(following)
    return Path(hash((tuple(trail), tuple(classes), outputs.shape, outputs.dtype, more)), found, steps)
