"""Where the batch lies in every tensor of a forward pass.

A per-sample gradient needs to know which axis of a layer's input counts samples. Shapes of one run cannot
tell (a batch of 64 sequences of 64 tokens), so the model is run once on two samples and once on three: the
axis whose length changed is the batch axis, whatever the module in between did (transposed, flattened,
cut into windows). The two runs cost five samples, once per accumulator.
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
    """Whether a call is a step of the forward pass, i.e. returns tensors and not sizes or flags."""
    return isinstance(result, Tensor) or (type(result) in (tuple, list) and bool(tensors_in(result)))


def batch_first(tensor: Tensor, axis: Axis, batch: int) -> Tensor:
    """View `tensor` with its samples as axis 0; what was merged with them becomes axis 1."""
    dim, outer = axis
    if tensor.shape[dim] != batch:
        parts = (batch, -1) if outer else (-1, batch)
        tensor, dim = tensor.unflatten(dim, parts), dim if outer else dim + 1
    return tensor.movedim(dim, 0) if dim else tensor


class _Seen(NamedTuple):
    """A tensor in the log: who it is, its shape, whether gradients flow through it, and values if needed."""

    identity: int
    shape: torch.Size
    differentiable: bool
    values: Tensor | None


class Log(TorchFunctionMode):
    """Records every torch function call that returns tensors, for a forward pass of `batch` samples."""

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


def _axis(two: _Seen, three: _Seen) -> Axis | None:
    """Batch axis of a tensor met in the runs of two and of three samples."""
    small, large, values, more = two.shape, three.shape, two.values, three.values
    if small == large:
        return None
    changed = [d for d in range(len(small)) if small[d] != large[d]] if len(small) == len(large) else []
    if len(changed) != 1 or small[changed[0]] * 3 != large[changed[0]] * 2:
        raise UnknownLayout(f"shapes {tuple(small)} and {tuple(large)} for batches of 2 and 3")
    dim = changed[0]
    if small[dim] == 2 or values is None or more is None:
        return Axis(dim)
    same = []
    for outer in (True, False):  # samples 0 and 1 are common to both runs: their values must agree
        first, second = (batch_first(t, Axis(dim, outer), n)[:2] for t, n in ((values, 2), (more, 3)))
        same.append(first.shape == second.shape and torch.allclose(first, second, rtol=1e-3, atol=1e-5))
    if not any(same):
        raise UnknownLayout(f"axis {dim} of shape {tuple(large)} mixes samples")
    return Axis(dim, outer=same[0])


def steps_of(two: Log, three: Log, parameters: set[int]) -> list[Step | UnknownLayout]:
    """The calls that involve parameters, in order, from the logs of two and of three samples.

    parameters: identities of the parameters in the log of two. What is computed from parameters and does not
    belong to samples counts as a parameter from then on. A step whose batch axis cannot be told is given as
    the `UnknownLayout` that says why. Raises UnknownLayout if the two runs take different paths.
    """
    if [c[0] for c in two.calls] != [c[0] for c in three.calls]:
        raise UnknownLayout("the forward pass takes another path when the batch size changes")
    like_parameters, steps = set(parameters), []
    for (func, *small), (_, *large) in zip(two.calls, three.calls, strict=True):
        if not any(seen.identity in like_parameters for seen in small[0]):
            continue
        try:
            inputs, outputs = (
                tuple(_axis(a, b) for a, b in zip(*pair, strict=True)) for pair in zip(small, large, strict=True)
            )
            if len(outputs) > 1 and any(outputs):
                raise UnknownLayout(f"{getattr(func, '__name__', func)} returns several tensors of samples")
            if not any(outputs):
                like_parameters |= {seen.identity for seen in small[1] if seen.differentiable}
            steps.append(Step(func, inputs, outputs[0]))
        except UnknownLayout as unknown:
            steps.append(unknown)
    return steps
