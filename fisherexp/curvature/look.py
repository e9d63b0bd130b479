"""Where the batch lies in the steps of a forward pass, found while it runs, from a log of the same pass on a part.

The batch axis is the one whose length is that of the part in the log and that of the batch now. What `layout_of` asks
of two small forward passes, the pass of the batch itself answers, as long as every tensor of samples has an axis for
nothing else; where it is merged with another, `UnknownLayout` is raised, and two small passes must tell.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .layout import Axis, Log, Step, UnknownLayout, counts, tensors_in, with_parameters


class Look:
    """Follows one forward pass of `batch` rows. `steps`: what was found so far."""

    def __init__(self, log: Log, parameters: Iterable[int], batch: int):
        self.like_parameters = set(parameters)  # by identity in the log
        self.calls = iter(with_parameters(log, self.like_parameters))
        self.sizes = log.batch, batch
        self.steps: list[Step] = []
        self.upcoming: tuple | None = None

    def step(self, func: Callable, args: Iterable[Any], alone: Callable[[], Any]) -> Step | None:
        """The step that a call with parameters is; None if the log has another next, as for questions about sizes.

        alone: evaluates it, which is asked of what takes parameters only.
        """
        call = self._next()
        if call is None or call[0] != func:
            return None
        _, inputs, outputs = call
        with torch._C.DisableTorchFunctionSubclass():
            shapes = [t.shape for t in tensors_in(args)]
        if len(shapes) != len(inputs) or len(outputs) != 1:
            raise UnknownLayout("several results, or other tensors than in the part")
        axes = tuple(self._axis(seen.shape, shape) for seen, shape in zip(inputs, shapes, strict=True))
        out = self._expected(axes, inputs, outputs[0].shape) or self._axis(outputs[0].shape, _shape(alone()))
        if out is None and outputs[0].differentiable:
            self.like_parameters.add(outputs[0].identity)
        self.expected, self.upcoming = outputs[0].shape, None
        self.steps.append(Step(func, axes, out))
        return self.steps[-1]

    def settle(self, result: Any) -> None:
        """Raise UnknownLayout unless the latest step's result has samples where they were assumed."""
        if self._axis(self.expected, _shape(result)) != self.steps[-1].output:
            raise UnknownLayout("the result of an operation on samples has none")

    def _next(self) -> tuple | None:
        """The next call of the log that was given a parameter, or what was computed from parameters alone."""
        while self.upcoming is None:
            call = next(self.calls, None)
            if call is None:
                return None
            if any(seen.identity in self.like_parameters for seen in call[1]):
                self.upcoming = call
        return self.upcoming

    def _expected(self, axes: tuple[Axis | None, ...], inputs: list, shape: torch.Size) -> Axis | None:
        """Where the result of this shape should have samples: where the first input with samples has them, counted
        from the front or from the back; `settle` finds out. None without samples in any input.
        """
        for axis, seen in zip(axes, inputs, strict=True):
            if axis is not None:
                same = axis.dim < len(shape) and shape[axis.dim] == self.sizes[0]
                return axis if same else Axis(axis.dim + len(shape) - len(seen.shape))
        return None

    def _axis(self, part: torch.Size, whole: torch.Size | None) -> Axis | None:
        if part == whole:
            return None
        if whole is not None and len(part) == len(whole):
            changed = [dim for dim, sizes in enumerate(zip(part, whole, strict=True)) if sizes[0] != sizes[1]]
            if len(changed) == 1 and (part[changed[0]], whole[changed[0]]) == self.sizes:
                return Axis(changed[0])
        raise UnknownLayout(f"shapes {tuple(part)} and {whole} for batches of {self.sizes[0]} and {self.sizes[1]}")


def _shape(result: Any) -> torch.Size | None:
    """The shape of a result that is one tensor."""
    with torch._C.DisableTorchFunctionSubclass():
        return result.shape if isinstance(result, Tensor) and counts(result) else None
