"""Where the batch lies in every tensor of a forward pass.

A per-sample gradient needs to know which axis of a layer's input counts samples. Shapes of one run cannot tell (a batch
of 64 sequences of 64 tokens), so runs of two sizes are compared: the axis whose length changed is the batch axis,
whatever the module in between did (transposed, flattened, cut into windows). One run is that on a part of the batch;
the other the batch itself (`look`) or, where samples are merged with something else, two or three rows (`layout_of`).
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class UnknownLayout(RuntimeError):
    """The position of the batch axis cannot be told, so per-sample rules do not apply."""


class Axis(NamedTuple):
    """Batch axis of one tensor: `dim`, and whether samples are the `outer` or inner part of a merged axis."""

    dim: int
    outer: bool = True


class Step(NamedTuple):
    """One torch function call of the forward pass: the batch axis of each tensor argument and of its result."""

    func: Callable
    inputs: tuple[Axis | None, ...]
    output: Axis | None


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among call arguments or results, one level of lists and tuples deep, in order."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += [item for item in value if isinstance(item, Tensor)]
    return found


def counts(result: Any) -> bool:
    """Whether a call is a step of the forward pass, i.e. returns tensors (also as a named tuple) and not sizes."""
    return isinstance(result, Tensor) or (isinstance(result, (tuple, list)) and bool(tensors_in(result)))


def batch_first(tensor: Tensor, axis: Axis, batch: int) -> Tensor:
    """View `tensor` with its samples as axis 0; what was merged with them becomes axis 1."""
    dim, outer = axis
    if tensor.shape[dim] != batch:
        parts = (batch, -1) if outer else (-1, batch)
        tensor, dim = tensor.unflatten(dim, parts), dim if outer else dim + 1
    return tensor.movedim(dim, 0) if dim else tensor


class Layout(NamedTuple):
    """The steps of a forward pass; `other` has the opposite choice where values left one open, None if none is."""

    steps: list[Step | UnknownLayout]
    other: list[Step | UnknownLayout] | None


class _Seen(NamedTuple):
    """A tensor in the log: who it is, its shape, whether gradients flow through it, and values if needed."""

    identity: int
    shape: torch.Size
    differentiable: bool
    values: Tensor | None


class Log(TorchFunctionMode):
    """Records every torch function call that returns tensors, for a forward pass of `batch` rows."""

    def __init__(self, decompositions: dict[Callable, Callable], batch: int):
        super().__init__()
        self.calls: list[tuple[Callable, list[_Seen], list[_Seen]]] = []
        self.alive: list[Tensor] = []  # so that an identity belongs to one tensor only
        self.decompositions, self.batch = decompositions, batch

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in self.decompositions:
            try:
                with self:
                    return self.decompositions[func](*args, **kwargs)
            except NotImplementedError:
                pass
        inputs = [self._note(t) for t in tensors_in((*args, *kwargs.values()))]
        result = func(*args, **kwargs)
        if counts(result):
            results = [result] if isinstance(result, Tensor) else tensors_in(result)
            self.calls.append((func, inputs, [self._note(t) for t in results]))
        return result

    def _note(self, tensor: Tensor) -> _Seen:
        self.alive.append(tensor)
        plain = not tensor.dim() or tensor.shape[0] == self.batch
        return _Seen(id(tensor), tensor.shape, tensor.requires_grad, None if plain else tensor.detach())


class _Open(NamedTuple):
    """A merged axis of `length` rows in the first log whose values fit either order; `outer` fits better."""

    dim: int
    outer: bool
    length: int


def _distance(first: Tensor, second: Tensor) -> float:
    """Difference of two tensors relative to the larger; infinite for other shapes."""
    if first.shape != second.shape:
        return float("inf")
    wide = torch.complex128 if first.is_complex() else torch.float64
    first, second = first.to(wide), second.to(wide)
    scale = max(first.abs().max().item(), second.abs().max().item()) if first.numel() else 0.0
    return (first - second).abs().max().item() / scale if scale else 0.0


def _axis(a: _Seen, b: _Seen, sizes: tuple[int, int]) -> Axis | _Open | None:
    """Batch axis of a tensor met in two runs of so many rows."""
    one, two, (m, n) = a.shape, b.shape, sizes
    if one == two:
        return None
    changed = [d for d in range(len(one)) if one[d] != two[d]] if len(one) == len(two) else []
    if len(changed) != 1 or one[changed[0]] * n != two[changed[0]] * m:
        raise UnknownLayout(f"shapes {tuple(one)} and {tuple(two)} for batches of {m} and {n}")
    dim = changed[0]
    if one[dim] == m or a.values is None or b.values is None:
        return Axis(dim)
    common, errors = min(sizes), []
    for outer in (True, False):  # the first samples are common to both runs: their values must agree
        parts = (batch_first(t.values, Axis(dim, outer), k)[:common] for t, k in ((a, m), (b, n)))
        errors.append(_distance(*parts))
    rounding = torch.finfo(a.values.dtype).eps ** 0.75 if a.values.dtype.is_floating_point else 0.0
    best = errors[0] <= errors[1]
    if not min(errors) <= max(rounding, 1e-3 * min(max(errors), 1.0)):
        raise UnknownLayout(f"axis {dim} of shape {tuple(two)} mixes samples")
    return Axis(dim, best) if max(errors) > rounding else _Open(dim, best, one[dim])


def _settled(axis: Axis | _Open | None, seen: _Seen, siblings: list[tuple[Axis | _Open | None, _Seen]]) -> Any:
    """An open axis as another tensor of the same operation has it, if that one has as many rows."""
    if type(axis) is _Open:
        for other, tensor in siblings:
            dim = axis.dim
            if type(other) is Axis and other.dim == dim and tensor.shape[dim] == seen.shape[dim]:
                return other
    return axis


def with_parameters(log: Log, parameters: set[int]) -> list[tuple[Callable, list[_Seen], list[_Seen]]]:
    """The calls that were given a parameter or what was computed from one. Positions and masks may be prepared in one
    way for a single sample and in another for several."""
    return [call for call in log.calls if any(t.differentiable or t.identity in parameters for t in call[1])]


def layout_of(first: Log, second: Log, parameters: set[int]) -> Layout:
    """The calls that involve parameters, in order, from the logs of two runs whose first rows are the same samples.

    parameters: identities of the parameters. What is computed from parameters and does not belong to samples counts
    as a parameter from then on. A step whose batch axis cannot be told is given as the `UnknownLayout` that says why.
    Raises UnknownLayout if the two runs take different paths.
    """
    calls, others = with_parameters(first, parameters), with_parameters(second, parameters)
    if [call[0] for call in calls] != [call[0] for call in others]:
        raise UnknownLayout("the forward pass takes another path when the batch size changes")
    like_parameters, found, sizes = set(parameters), [], (first.batch, second.batch)
    for (func, *small), (_, *large) in zip(calls, others, strict=True):
        if not any(seen.identity in like_parameters for seen in small[0]):
            continue
        try:
            if len(small[0]) != len(large[0]) or len(small[1]) != len(large[1]):
                raise UnknownLayout("the number of tensors changes with the batch")
            inputs, outputs = (
                [_axis(a, b, sizes) for a, b in zip(*pair, strict=True)] for pair in zip(small, large, strict=True)
            )
            if len(outputs) > 1 and any(outputs):
                raise UnknownLayout(f"{getattr(func, '__name__', func)} returns several tensors of samples")
            if not any(outputs):
                like_parameters |= {seen.identity for seen in small[1] if seen.differentiable}
            pairs = list(zip((*inputs, outputs[0]), (*small[0], small[1][0]), strict=True))
            found.append((func, [_settled(axis, seen, pairs) for axis, seen in pairs]))
        except UnknownLayout as unknown:
            found.append(unknown)
    return _closed(found)


def _closed(found: list[UnknownLayout | tuple[Callable, list[Axis | _Open | None]]]) -> Layout:
    """Open axes as most others with as many rows have them, and in `other` the opposite."""
    axes = [axis for item in found if type(item) is tuple for axis in item[1]]
    orders: dict[int, bool] = {}
    for axis in axes:
        if type(axis) is _Open:
            orders.setdefault(axis.length, axis.outer)

    def step(item, opposite: bool):
        if type(item) is not tuple:
            return item
        close = [Axis(a.dim, orders[a.length] != opposite) if type(a) is _Open else a for a in item[1]]
        return Step(item[0], tuple(close[:-1]), close[-1])

    return Layout([step(i, False) for i in found], [step(i, True) for i in found] if orders else None)


def refuse_inner(steps: Iterable[Step | UnknownLayout]) -> None:
    """Raise UnknownLayout where rows of the batch lie between others: consecutive ones are not together there."""
    for step in steps:
        if step.__class__ is Step and any(axis and not axis.outer for axis in (*step.inputs, step.output)):
            raise UnknownLayout("several rows make a sample, and the network lays others between them")
