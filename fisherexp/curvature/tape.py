"""One forward pass with detached parameters, and the gradient each use of a parameter receives in backward.

No ordinary weight gradient is computed: parameters enter every operation detached, so autograd propagates
activations' gradients only, and at each operation that used a parameter the consumer is handed the rule (which
holds the operation's input) and the gradient of its result.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layout import Step, UnknownLayout, counts, tensors_in
from .look import Look
from .rules import DECOMPOSITIONS, Call, Fallback, Handle, NotFollowed, Unsupported, Use, rule_for

Receive = Callable[[Use, Tensor], None]


class Tracked(Tensor):
    """A parameter as the model meets it: every torch function that is given one is handed to its tape."""

    tape: "Tape"
    handle: Handle

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        found, tape = {}, None
        for item in (*args, *kwargs.values()) if kwargs else args:
            if item.__class__ is cls:
                found[id(item)], tape = item.__dict__["handle"], item.__dict__["tape"]
            elif item.__class__ in (list, tuple):
                for inner in item:
                    if inner.__class__ is cls:
                        found[id(inner)], tape = inner.__dict__["handle"], inner.__dict__["tape"]
        if tape is None:  # hidden deeper in the arguments: autograd then shows it as unseen
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        return tape.call(func, args, kwargs, found)


class Tape:
    """Follows the parameters through forward passes, one at a time.

    parameters: by name; steps: the layout, or a look that finds it in the first pass; buffers: the model's, which are
    the same for every batch until written to.
    After a forward pass: `uses` lists the uses of parameters, `opaque` the parameters that took part in an operation
    no rule can follow, `fallbacks` what was left to `torch.func`.
    """

    def __init__(
        self,
        parameters: dict[str, Tensor],
        steps: list[Step | UnknownLayout] | Look,
        channels_last: bool = False,
        kernel: Callable | None = None,
        buffers: Iterable[Tensor] = (),
    ):
        self.buffers = {b.untyped_storage().data_ptr(): (b, b._version) for b in buffers if b.layout is torch.strided}
        self.tracked = {n: self._track(Handle(p.detach(), (n,))) for n, p in parameters.items()}
        self.parameters = parameters
        self.addresses = [(p.data_ptr(), p.dtype) for p in parameters.values()]
        self.look = steps if isinstance(steps, Look) else None
        self.steps = steps if self.look is None else self.look.steps
        self.channels_last, self.kernel = channels_last, kernel
        self.recurring: dict[int, Use] = {}  # by step: what this call was met by in an earlier batch
        self.token = torch.zeros((), requires_grad=True, device=next(iter(parameters.values())).device)
        self.start(0, None)

    def start(self, batch: int, receive: Receive | None) -> None:
        """Begin a forward pass of `batch` samples; `receive(use, gradient of its result)` is called in backward."""
        self.batch, self.receive, self.index = batch, receive, 0
        self.last = True  # no further backward pass follows: saved inputs may be forgotten
        self.lost: set[str] = set()  # parameters whose gradients come one sample at a time
        self.uses: list[Use] = []
        self.opaque: set[str] = set()
        self.fallbacks: dict[str, str] = {}
        self.trail: list[tuple] = []  # what each call met, and its shapes
        self.indices: list[Tensor] = []  # integers and masks given to operations that may move rows

    def current(self) -> bool:
        """Whether the parameters still lie where they did (they move with `.to` and sharding)."""
        return [(p.data_ptr(), p.dtype) for p in self.parameters.values()] == self.addresses

    def _track(self, handle: Handle) -> Tensor:
        if handle.direct:
            tracked = Tensor._make_subclass(Tracked, handle.value, True)
        else:
            tracked = handle.graph.as_subclass(Tracked)
        tracked.__dict__["tape"], tracked.__dict__["handle"] = self, handle
        return tracked

    def call(self, func: Callable, args: tuple, kwargs: dict[str, Any], found: dict[int, Handle]) -> Any:
        """One torch function with parameters (`found`, by identity) among its arguments."""
        if args and args[0].__class__ is Tracked and _overwrites(func):
            if self.look is not None:
                raise UnknownLayout("a parameter, or what was computed from one, is changed in place")
            if not found[id(args[0])].direct:
                return self._overwritten(func, args, kwargs, found)
        use = self.recurring.get(self.index)
        if (
            use is not None
            and use.call.func == func
            and torch.is_grad_enabled()
            and use.again(self.batch, args, kwargs)
        ):
            self.index += 1
            self.trail.append((use.key, (args[0].shape, *use.shapes)))
            self.uses.append(use)
            return use.run(args, kwargs, self.receive, self.token)
        noted = len(self.indices)
        self._follow(func, args, kwargs, found)
        if func in DECOMPOSITIONS:
            try:
                return DECOMPOSITIONS[func](*args, **kwargs)
            except Unsupported:
                pass
        if self.look is not None and self.index == len(self.steps) and torch.is_grad_enabled():
            self.look.step(func, (*args, *kwargs.values()), lambda: self._alone(func, args, kwargs, found))
        step = self.steps[self.index] if self.index < len(self.steps) else None
        followed = step.__class__ is Step and step.func == func
        if followed and torch.is_grad_enabled():
            call = Call(func, self.batch, step, found, self.channels_last, self.kernel)
            if step.output is not None:
                self.index += 1
                out = self._used(call, args, kwargs)
            else:
                out = self._derived(call, args, kwargs)
                self.indices[noted:] = [i for i in self.indices[noted:] if not self._constant(i)]
            if self.look is not None:
                self.look.settle(out)
            return out
        # Sizes and flags of a parameter, or an operation whose samples cannot be told apart.
        out = Call(func, self.batch, None, found).run(args, kwargs)
        if counts(out):
            if not (followed or step.__class__ is UnknownLayout):
                raise UnknownLayout("the forward pass takes another path than when it was traced")
            if torch.is_grad_enabled():
                self._lose(found)
            self.index += 1
        elif out is None and torch.is_grad_enabled():
            self._lose(found)  # written into another tensor
        return out

    def _alone(self, func: Callable, args: tuple, kwargs: dict[str, Any], found: dict[int, Handle]) -> Any:
        """What a function makes of parameters, without a graph."""
        with torch.no_grad():
            return Call(func, self.batch, None, found).run(args, kwargs)

    def _follow(self, func: Callable, args: tuple, kwargs: dict[str, Any], found: dict[int, Handle]) -> None:
        """Note a call for `path.path_of`, which tells whether a forward pass is one that was verified."""
        met = tuple(root for handle in found.values() for root in handle.roots)
        with torch._C.DisableTorchFunctionSubclass():
            tensors = tensors_in((*args, *kwargs.values()))
            self.trail.append(((func, met), tuple(t.shape for t in tensors)))
            if rule_for(func) is None:
                self.indices += [t for t in tensors if not (t.is_floating_point() or t.is_complex())]

    def _constant(self, index: Tensor) -> bool:
        """Whether an index is a buffer that nothing wrote to, as of position tables: no batch decides about it."""
        buffer, version = self.buffers.get(index.untyped_storage().data_ptr(), (index, -1))
        return buffer._version == version

    def _overwritten(self, func: Callable, args: tuple, kwargs: dict[str, Any], found: dict[int, Handle]) -> Any:
        """An operation that changes a tensor computed from parameters in place; its graph changes with it."""
        target = found[id(args[0])]
        graphs = {i: _Graph(h) for i, h in found.items()}
        out = Call(func, self.batch, None, graphs).run(args, kwargs)
        self.index += counts(out)
        sources = {s.roots: s for h in found.values() for s in (h.sources or (h,))}
        target.sources = tuple(sources.values())
        target.roots = tuple(root for (root,) in sources)
        return out if out is None else args[0]

    def linear(self, module: nn.Module, weight: str, bias: str | None) -> Callable[[Tensor], Tensor]:
        """What the `nn.Linear` evaluates with these parameters, without a dispatch of torch, which takes as long as
        the arithmetic of a small layer. Where it holds other tensors at the moment, it uses those."""
        w, b = self.tracked[weight], None if bias is None else self.tracked[bias]
        found = {id(t): t.__dict__["handle"] for t in (w, b) if t is not None}
        attributes = module.__dict__

        def forward(input: Tensor) -> Tensor:
            held = attributes["_parameters"]
            if held.get("weight") is not w or held.get("bias") is not b or input.__class__ is not Tensor:
                return F.linear(input, module.weight, module.bias)
            return self.call(F.linear, (input, w, b), {}, found)

        return forward

    def _derived(self, call: Call, args, kwargs):
        """A result without samples: computed from parameters alone, hence like a parameter from here on."""
        graphs = {i: _Graph(h) for i, h in call.handles.items()}
        out = Call(call.func, self.batch, call.step, graphs).run(args, kwargs)
        self.index += counts(out)
        sources = {s.roots: s for h in call.handles.values() for s in (h.sources or (h,))}
        roots = tuple(root for (root,) in sources)

        def track(tensor):
            if not (isinstance(tensor, Tensor) and tensor.requires_grad):
                return tensor
            return self._track(Handle(tensor.detach(), roots, tuple(sources.values()), tensor))

        if isinstance(out, Tensor):
            return track(out)
        make = getattr(type(out), "_make", type(out))  # a NamedTuple's constructor takes its fields apart
        return make([track(item) for item in out])

    def _used(self, call: Call, args, kwargs):
        noted = len(self.trail)
        with torch._C.DisableTorchFunctionSubclass():  # rules are written for real numbers
            real = not any(t.is_complex() for t in tensors_in((*args, *kwargs.values())))
        for rule in (rule_for(call.func), Fallback) if real else ():
            if rule is None:
                continue
            try:
                use = rule(call, *args, **kwargs)
                out = use.run(args, kwargs, self.receive, self.token)
            except NotFollowed:
                break
            except Unsupported:
                continue
            del self.trail[noted:]  # what the rule asked about its parameters
            use.key, (_, *use.shapes) = self.trail[-1]
            if use.keep(args, kwargs):
                self.recurring[self.index - 1] = use
            self.uses.append(use)
            if rule is Fallback:
                self.fallbacks.setdefault(getattr(call.func, "__name__", str(call.func)), use.name)
            return out
        del self.trail[noted:]
        self._lose(call.handles)
        return call.run(args, kwargs)

    def _lose(self, handles: dict[int, Handle]) -> None:
        self.opaque |= {root for h in handles.values() for root in h.roots}

    def close(self) -> None:
        """Let go of the batch: reference cycles would keep its memory until they are collected."""
        for use in (*self.uses, *self.recurring.values()):
            use.release()
        self.uses, self.receive = [], None

    def unseen(self, output: Tensor) -> tuple[set[str], bool]:
        """Parameters that reached `output` by a way torch functions do not show; whether any layer would be
        evaluated again in backward.

        Own autograd functions, scripted modules, parameters kept outside modules' dictionaries: they, or what
        stands for them here, are then leaves of the graph.
        """
        owner = {id(p): name for name, p in self.parameters.items()}
        for name, tracked in self.tracked.items():
            owner[id(tracked)] = owner[id(tracked.__dict__["handle"]._graph)] = name
        seen, stack, lost, again = set(), [output.grad_fn], set(), False
        while stack:
            node = stack.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            leaf = getattr(node, "variable", None)
            if leaf is not None and id(leaf) in owner:
                lost.add(owner[id(leaf)])
            again |= "CheckpointFunction" in node.name()
            stack.extend(following for following, _ in node.next_functions)
        return lost, again


def _overwrites(func: Callable) -> bool:
    """Whether a torch function changes its first argument in place."""
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name == "__setitem__" or name in _AUGMENTED


_AUGMENTED = {"__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__", "__imatmul__"}


class _Graph:
    """A handle whose value carries the graph to its leaves."""

    def __init__(self, handle: Handle):
        self.value = handle.graph


def pull_back(handle: Handle, root: str, grads: Tensor) -> Tensor:
    """Per-sample gradients (N, *shape) of the parameter `root` from those of a tensor derived from it."""
    if handle.direct:
        return grads
    leaf = handle.sources[handle.roots.index(root)].graph
    options = {"retain_graph": True, "is_grads_batched": True, "allow_unused": True}
    (out,) = torch.autograd.grad(handle.graph, leaf, grads.to(handle.graph.dtype), **options)
    return leaf.new_zeros(grads.shape[0], *leaf.shape) if out is None else out
