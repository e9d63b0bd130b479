"""Which way a forward pass took: what it must share with an earlier one for that one's verification to hold.

Two passes took the same way if their parameters were met by the same functions with tensors of the same shapes, if
the graph behind the outputs has the same operations over the same axes, joined in the same way, and if operations that
move rows (indexing, gathering, sorting, products with matrices that are mostly 0) were given the same indices.
"""

from collections.abc import Iterator
from functools import cache
from math import nan, prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from .layout import Step, UnknownLayout

# Operations whose integer arguments decide which row of the result is whose.
_MOVING = {
    *("GatherBackward0", "IndexBackward0", "IndexAddBackward0", "IndexCopyBackward0", "IndexFillBackward0"),
    *("IndexPutBackward0", "IndexSelectBackward0", "MaskedScatterBackward0", "MaskedSelectBackward0"),
    *("PackPaddedSequenceBackward0", "PutBackward0", "ScatterBackward0", "ScatterBackward1", "ScatterAddBackward0"),
    *("ScatterReduceBackward0", "SortBackward0", "SortBackward1", "TakeBackward0", "TopkBackward0"),
    *("EmbeddingBackward0", "EmbeddingBagBackward0", "IndexReduceBackward0", "SegmentReduceBackward0"),
    *("KthvalueBackward0", "MaxUnpool2DBackward0", "MaxUnpool3DBackward0"),
}
# Products, by which a matrix of few entries, as of experts' places, moves rows as indices do.
_PRODUCTS = {
    *("AddbmmBackward0", "AddmmBackward0", "BaddbmmBackward0", "BmmBackward0", "MmBackward0", "MvBackward0"),
    "SparseAddmmBackward0",
}

_AXES = {"dim", "dim0", "dim1", "dim2", "dims", "dimension", "start", "end", "step", "size", "stride", "split_size"}
_AXES |= {"shifts", "repeats", "pad", "offset", "diagonal", "storage_offset", "self_sym_sizes", "split_sizes", "k"}


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


@cache
def _kept_by(kind: type) -> list[str]:
    """What operations of one kind may keep tensors under."""
    numbers = ("_alpha", "_beta", "_sym_sizes", "_sym_strides")
    return [name for name in dir(kind) if name.startswith("_saved_") and not name.endswith(numbers)]


def _saved(node: Any) -> Iterator[Tensor]:
    """The tensors that an operation keeps for backward."""
    for name in _kept_by(node.__class__):
        saved = getattr(node, name)
        yield from (t for t in (saved if isinstance(saved, (tuple, list)) else (saved,)) if isinstance(t, Tensor))


def _integers(tensors: Iterator[Tensor]) -> list[Tensor]:
    return [t for t in tensors if not (t.is_floating_point() or t.is_complex())]


def _indices_of(node: Any) -> list[Tensor]:
    """Indices and masks of one operation; none where x[arange(N), …] chooses inside every row."""
    found = _integers(_saved(node))
    if found and node.__class__.__name__ == "IndexBackward0" and getattr(node, "_saved_indices", [None])[0] is not None:
        rows = found[0]
        if rows.dim() == 1 and len(rows) > 1 and torch.equal(rows, torch.arange(len(rows), device=rows.device)):
            return []
    return found


def _places_of(node: Any, batch: int, parameters: set[int]) -> list[Tensor]:
    """Where the factors of a product have entries, if these are few and an axis may count rows of the batch.

    Factors with gradients of which there is one to a row, such as attention, stay within it. parameters: where their
    storage is; they belong to no batch.
    """
    found = []
    for t in _saved(node):
        if t.layout is not torch.strided:
            found.append(t.detach().to_sparse_coo().coalesce().indices())
        elif any(size % batch == 0 for size in t.shape[-2:]):
            apart = t.requires_grad and t.dim() == 3 and t.shape[0] % batch == 0
            if not apart and t.untyped_storage().data_ptr() not in parameters and 2 * t.count_nonzero() <= t.numel():
                found.append(t.detach() != 0)
    return found


def _unseen(node: Any, kind: str) -> list[Tensor]:
    """What an operation may move rows by and does not show: NaN, which equals nothing. An index that a user's function
    keeps is returned instead.
    """
    if kind == "CopySlices":  # z[i] = row does not show the place, as z[:, 0] = rows need not and z.relu_() has none
        following = [(n, i) for n, i in node.next_functions[1:] if n is not None]
        parts = [(n, i) for n, i in following if n.__class__.__name__ != "AccumulateGrad"]  # a leaf is no row's
        whole, shapes = node._input_metadata[0].shape, [n._input_metadata[i].shape for n, i in parts]
        some = any(prod(shape) < prod(whole) and shape[:1] != whole[:1] for shape in shapes)
        return [torch.tensor(nan)] if some else []
    kept = [*node.saved_tensors, *vars(node).values()]
    kept += [torch.tensor(v) for v in kept if isinstance(v, (list, tuple)) and v and all(type(i) is int for i in v)]
    return _integers(t for t in kept if isinstance(t, Tensor))


@cache
def _axes_of(kind: type) -> list[str]:
    """What operations of one kind remember of axes and sizes."""
    known = {*_AXES, "index"} if kind.__name__.startswith("Select") else _AXES  # elsewhere an index is a tensor
    return [name for name in dir(kind) if name.removeprefix("_saved_") in known]


def path_of(
    outputs: Tensor,
    trail: list[tuple],
    indices: list[Tensor],
    steps: list,
    parameters: set[int],
    batch: int,
    *more: Any,
) -> Path:
    """The path to `outputs`. trail, indices: as the tape noted them; parameters: addresses of their storage; more:
    whatever else tells passes apart.
    """
    way, found, seen = [], list(indices), {}
    stack = [outputs.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            way.append(seen.get(node))
            continue
        seen[node] = len(seen)
        kind = node.__class__
        way.append(kind)
        way += [getattr(node, name) for name in _axes_of(kind)]
        name = kind.__name__
        if name in _MOVING:
            found += _indices_of(node)
        elif name in _PRODUCTS and batch > 1:
            found += _places_of(node, batch, parameters)
        elif name == "CopySlices" or isinstance(node, BackwardCFunction):
            found += _unseen(node, name)
        for following, result in node.next_functions:
            stack.append(following)
            way.append(result)
    key = hash((tuple(trail), tuple(way), outputs.shape, outputs.dtype, batch, more))
    return Path(key, found, steps)
