"""What a layer rule is: one use of parameters in the forward pass, and their per-sample gradients from it.

A rule sees the saved input x of an operation and, during backward, the gradient g of the summed loss with
respect to its result. Because the loss is a sum over samples, row n of g belongs to sample n alone, and the
gradient of sample n with respect to a parameter follows from (x_n, g_n) without another backward pass.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..layout import Axis, Step, batch_first
from ..sketch import Sketch

# Per-sample gradients are formed for a few samples at a time: what fits here stays in cache on a CPU.
CHUNK_BYTES = 16 * 2**20
DEVICE_BYTES = 256 * 2**20


class Handle:
    """A parameter, or a tensor computed from parameters alone, as the forward pass sees it.

    value: its detached value; roots: names of the parameters it comes from; sources: for a derived tensor, the
    handles of those parameters, in the same order, and `graph` the tensor with its graph to theirs.
    """

    __slots__ = ("_graph", "roots", "sources", "value")

    def __init__(
        self,
        value: Tensor,
        roots: tuple[str, ...],
        sources: tuple["Handle", ...] = (),
        graph: Tensor | None = None,
    ):
        self.value, self.roots, self.sources, self._graph = value, roots, sources, graph

    @property
    def graph(self) -> Tensor:
        """The tensor with its graph; for a parameter, a leaf that stands for it."""
        if self._graph is None:
            self._graph = self.value.detach().requires_grad_()
        return self._graph

    @property
    def direct(self) -> bool:
        """Whether this is a parameter itself and not something computed from parameters."""
        return not self.sources


@dataclass(slots=True)
class Call:
    """One call of the forward pass: its batch size, layout, and the handles among its arguments by id."""

    func: Callable
    batch: int
    step: Step
    handles: dict[int, Handle]
    channels_last: bool = False  # convolutions may lay out their results so, which libraries compute faster
    kernel: Callable | None = None  # of `fisherexp.curvature.kernels`, if it is used
    known: tuple[list, dict] | None = None  # arguments after the input as `run` passes them, once found out

    def value(self, item):
        """`item` with parameters (also inside lists) replaced by their detached values."""
        handle = self.handles.get(id(item))
        if handle is not None:
            return handle.value
        if type(item) in (list, tuple):
            return type(item)(self.value(i) for i in item)
        return item

    def run(self, args: tuple, kwargs: dict) -> Any:
        """The operation with detached parameters."""
        if self.known is not None:
            rest, named = self.known
            return self.func(args[0], *rest, **named)
        value = self.value
        return self.func(*[value(a) for a in args], **{k: value(v) for k, v in kwargs.items()})


class Unsupported(NotImplementedError):
    """A rule cannot handle this particular call; a more general one must."""


class NotFollowed(Unsupported):
    """No rule can handle this call, not even the general one: its parameters go one sample at a time."""


class Use:
    """One use of parameters in one forward pass. Subclasses are the layer rules.

    A subclass names its parameters in `slots` when constructed and implements `per_sample`; where algebra
    avoids per-sample gradients it also implements `add_squares`.

    recurring: whether everything but the saved input follows from the arguments after the first. Such a use serves
    later batches too: made once, it is only given the next input, which keeps small networks from waiting for it.
    """

    recurring = False
    key: tuple = ()  # function and parameters, as the tape noted them,
    shapes: Sequence[torch.Size] = ()  # and shapes of all arguments but the first

    def __init__(self, call: Call, **slots: Tensor | None):
        self.call = call
        handles = call.handles
        self.slots = {slot: handles[id(t)] for slot, t in slots.items() if id(t) in handles}
        if len(self.slots) != len(handles):
            raise Unsupported  # a parameter in an unusual place, such as the input
        self.saved: Tensor | None = None
        self.version = 0

    def save(self, x: Tensor) -> None:
        """Keep the operation's input. Training would keep it too, so a network never overwrites it."""
        self.saved = x.detach() if x.requires_grad else x
        self.version = x._version

    def run(self, args: tuple, kwargs: dict, receive: Callable[["Use", Tensor], None], token: Tensor) -> Tensor:
        """Execute the operation with detached parameters; `receive(self, g)` is called during backward."""
        return tap(self.call.run(args, kwargs), partial(receive, self), token)

    def keep(self, args: tuple, kwargs: dict) -> bool:
        """Remember the call for `again`; whether it can recur."""
        if not (self.recurring and args and args[0] is not None and id(args[0]) not in self.call.handles):
            return False
        self.rest, self.named, self.dtype = args[1:], kwargs, args[0].dtype
        value = self.call.value
        self.call.known = [value(a) for a in self.rest], {k: value(v) for k, v in kwargs.items()}
        return True

    def again(self, batch: int, args: tuple, kwargs: dict) -> bool:
        """Take up a later call if it is the same but for its input; else the caller needs a new use."""
        x = args[0] if args else None
        if x.__class__ is not Tensor or x.dtype != self.dtype:
            return False
        if not _same(args[1:], self.rest):
            return False
        if (kwargs or self.named) and not _same([*kwargs, *kwargs.values()], [*self.named, *self.named.values()]):
            return False
        self.call.batch = batch
        self.save(x)
        return True

    def unchanged(self) -> Tensor:
        """The saved input as it was; raises RuntimeError if the network overwrote it."""
        if self.saved._version != self.version:
            raise RuntimeError(f"the input of {self.name} was changed in place after its use")
        return self.saved

    def inputs(self, dtype: torch.dtype, which: int = 0) -> Tensor:
        """The saved input, samples first, in the accumulation dtype."""
        x, axis = self.unchanged(), self.call.step.inputs[which]
        if axis == (0, True) and x.dtype == dtype and x.shape[0] == self.call.batch:
            return x  # the usual case
        return self._samples_first(x, axis, dtype)

    def grads(self, g: Tensor) -> Tensor:
        """The gradient of the result, samples first, at least in float32."""
        if self.call.step.output == (0, True) and g.shape[0] == self.call.batch and g.dtype == torch.float32:
            return g  # the usual case
        return self._samples_first(g, self.call.step.output, accumulation_dtype(g.dtype))

    def _samples_first(self, tensor: Tensor, axis: Axis | None, dtype: torch.dtype) -> Tensor:
        if axis is None:
            raise Unsupported
        tensor = batch_first(tensor, axis, self.call.batch)
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    @property
    def name(self) -> str:
        """Parameters used here, for messages."""
        return ", ".join(root for handle in self.slots.values() for root in handle.roots)

    def per_sample(self, slot: str, g: Tensor, rows: slice) -> Tensor:
        """Gradients of the samples `rows` with respect to the parameter in `slot`: (rows, *parameter shape).

        g: gradient of the result as `grads` returns it (all samples).
        """
        raise NotImplementedError

    def add_squares(self, g: Tensor, totals: dict[str, Tensor], last: bool = True) -> None:
        """Add the sum over samples of squared per-sample gradients to `totals` (by slot, in parameters' shapes).

        Called once per backward pass; with `last` False, work may be put off to the pass that is last.
        """
        for slot, total in totals.items():
            for rows in chunks(g.shape[0], total.numel() * total.element_size(), device=g.device.type):
                # Out of place: gradients handed back by autograd may share memory.
                total += self.per_sample(slot, g, rows).square().sum(0)

    def weighted(self, slot: str, g: Tensor, rows: slice, weights: Tensor) -> Tensor:
        """Σ_n w_n G_n over the samples `rows` with weights (rows,), in the parameter's shape: the ordinary weight
        gradient with row n of g scaled by w_n, by which `identity` verifies what is squared elsewhere.
        """
        total = None
        value, (start, stop, _) = self.slots[slot].value, rows.indices(g.shape[0])
        for part in chunks(stop - start, value.numel() * g.element_size(), device=g.device.type):
            some = self.per_sample(slot, g, slice(start + part.start, start + part.stop))
            product = torch.tensordot(weights[part].to(some.dtype), some, 1)
            total = product if total is None else total + product
        return total.reshape(value.shape)

    def sketched(self, slot: str, g: Tensor, rows: slice, weights: Tensor, sketch: Sketch) -> Tensor:
        """The sketch of `weighted`."""
        return sketch.of(self.weighted(slot, g, rows, weights))

    def release(self) -> None:
        """Forget the saved input, as backward forgets its own."""
        self.saved = None


def _same(found: Sequence, earlier: Sequence) -> bool:
    """Whether arguments are the same objects, or equal where they are not tensors."""
    if len(found) != len(earlier):
        return False
    for a, b in zip(found, earlier, strict=True):
        if a is not b and (isinstance(a, Tensor) or a.__class__ is not b.__class__ or a != b):
            return False
    return True


def chunks(batch: int, bytes_per_sample: int, limit: int = CHUNK_BYTES, device: str = "cpu") -> Iterator[slice]:
    """Slices over samples so that what is formed for one slice stays below `limit` bytes.

    On other devices than a CPU launches cost more than misses of a cache: the limit is at least DEVICE_BYTES.
    """
    limit = limit if device == "cpu" else max(limit, DEVICE_BYTES)
    size = max(1, limit // max(bytes_per_sample, 1))
    for start in range(0, batch, size):
        yield slice(start, min(start + size, batch))


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 stays; everything narrower accumulates in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class _Tap(torch.autograd.Function):
    """Identity that starts the graph at a tensor no gradient would otherwise reach (a first layer's result)."""

    @staticmethod
    def forward(ctx, tensor, token, receive):
        ctx.receive = receive
        ctx.mark_dirty(tensor)  # the same tensor object continues, so in-place operations may follow
        return tensor

    @staticmethod
    def backward(ctx, g):
        ctx.receive(g)
        return None, None, None


class _Leaf(torch.autograd.Function):
    """Identity on an expanded constant: its gradient is handed over and not stored."""

    @staticmethod
    def forward(ctx, tensor, token, receive):
        ctx.receive = receive
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, g):
        ctx.receive(g)
        return None, None, None


def tap(out: Tensor, receive: Callable[[Tensor], None], token: Tensor) -> Tensor:
    """Arrange for `receive(g)` to be called with the gradient of `out`; returns the tensor to continue with."""
    whole, shape = out, out.shape
    if out._is_view():  # in-place operations leave out the node of a view, as linear layers over positions return
        base = out._base
        same = base.numel() == out.numel() and base.is_contiguous() and out.is_contiguous()
        if base.grad_fn is None or not same:
            return _Tap.apply(out, token, receive)
        whole = base
    if whole.grad_fn is not None and whole.output_nr == 0:
        # At the node and not at the tensor, which an in-place operation may give another history.
        whole.grad_fn.register_prehook(lambda gradients: receive(gradients[0].reshape(shape)))
        return out
    if out.requires_grad:
        out.register_hook(lambda g: receive(g))
        return out
    return _Tap.apply(out, token, receive)


def tap_expanded(value: Tensor, receive: Callable[[Tensor], None], token: Tensor) -> Tensor:
    """As `tap`, for a stride-0 expansion of a parameter."""
    return _Leaf.apply(value, token, receive)
