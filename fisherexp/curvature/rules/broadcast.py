"""Parameters used directly: class tokens, position embeddings, layer scale, prompts, additive biases.

An elementwise operation broadcasts the parameter over samples (and perhaps positions). Handing it an expanded
copy of the parameter instead leaves the result unchanged, and the gradient of that copy, summed over the axes
other than the samples', is the per-sample gradient.
"""

import torch
from torch import Tensor

from .base import Call, Unsupported, Use, tap_expanded


class Broadcast(Use):
    """An elementwise operation with one parameter among its arguments."""

    def __init__(self, call: Call, *args, **kwargs):
        parameters = [a for a in args if id(a) in call.handles]
        if len(parameters) != 1:
            raise Unsupported
        super().__init__(call, parameter=parameters[0])
        self.parameter = parameters[0]

    def result_shape(self, args) -> torch.Size:
        """Shape to which the parameter is broadcast."""
        return torch.broadcast_shapes(*(a.shape for a in args if isinstance(a, Tensor)))

    def run(self, args, kwargs, receive, token):
        name = self.call.func.__name__
        if args[0] is self.parameter and (name.startswith("__i") or name.rstrip("_") + "_" == name):
            raise Unsupported  # the parameter itself would be overwritten
        shape, axis = self.result_shape(args), self.call.step.output
        self.aligned = [1] * (len(shape) - self.parameter.dim()) + list(self.parameter.shape)
        if any(own not in (1, size) for own, size in zip(self.aligned, shape, strict=True)):
            raise Unsupported  # tiled, not broadcast
        if self.aligned[axis.dim] != 1:
            raise Unsupported  # the parameter's own axis would count samples
        merged = [] if shape[axis.dim] == self.call.batch else [1]
        self.aligned[axis.dim : axis.dim + 1] = merged  # aligned with one sample of the result
        value = self.slots["parameter"].value
        expanded = tap_expanded(value.expand(shape), lambda g: receive(self, g), token)
        return self.apply(expanded, args, kwargs)

    def apply(self, expanded: Tensor, args, kwargs) -> Tensor:
        """The operation on the expanded parameter."""
        return self.call.func(*(expanded if a is self.parameter else a for a in args), **kwargs)

    def per_sample(self, slot, g, rows):
        g = g[rows]
        return g.sum_to_size(g.shape[0], *self.aligned).reshape(-1, *self.slots[slot].value.shape)

    def add_squares(self, g, totals, last=True):
        for slot, total in totals.items():
            total += self.per_sample(slot, g, slice(None)).square().sum(0)


class Expand(Broadcast):
    """`parameter.expand(...)`, and `parameter.repeat(...)` along axes of length one."""

    def result_shape(self, args):
        return self.call.func(*map(self.call.value, args)).shape

    def apply(self, expanded, args, kwargs):
        return expanded


def _functions(*names: str) -> set:
    """All spellings of elementwise functions: torch.add, Tensor.add, Tensor.add_, operators."""
    spellings = [(torch, n) for n in names]
    for n in names:
        spellings += [(Tensor, s) for s in (n, f"{n}_", f"__{n}__", f"__r{n}__", f"__i{n}__")]
    return {getattr(owner, name) for owner, name in spellings if hasattr(owner, name)}


ELEMENTWISE = _functions(
    "add",
    "sub",
    "mul",
    "div",
    "true_divide",
    "truediv",
    "multiply",
    "subtract",
    "divide",
    "pow",
    "maximum",
    "minimum",
)
RULES = dict.fromkeys(ELEMENTWISE, Broadcast) | dict.fromkeys(
    [Tensor.expand, Tensor.expand_as, Tensor.repeat, torch.broadcast_to, Tensor.broadcast_to], Expand
)
