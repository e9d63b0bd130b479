"""Runs a model for its per-sample gradients and leaves no trace in it.

`Engine.sweep` performs one forward pass and one backward pass per seed vector, and hands each use of a parameter,
with the gradient it received, to a consumer: squared sums, norms, second moments, Kronecker factors.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .layout import Log, UnknownLayout, steps_of
from .modules import ruled_modules
from .rules import DECOMPOSITIONS, Use
from .rules.normalization import BatchStatistics
from .tape import Places, Tape

Seeds = Callable[[Tensor], Iterable[Tensor]]


class Consumer(Protocol):
    """What a sweep feeds. Gradients arrive in backward order."""

    def begin(self, tape: Tape) -> None:
        """The forward pass is over; `tape.uses` is complete."""

    def receive(self, use: Use, g: Tensor) -> None:
        """One use of a parameter and the gradient of its result (samples where the layout says)."""

    def end(self) -> None:
        """A backward pass is over; called once per seed vector."""

    def one_by_one(self, names: list[str], index: int, gradients: list[Tensor]) -> None:
        """Whole gradients of sample `index`, for parameters that no rule could follow."""


def wanted_parameters(model: nn.Module, parameters: Any = None) -> dict[str, nn.Parameter]:
    """Parameters by name. None: all that require gradients; else names, tensors, or a predicate on the name.

    A parameter shared by several modules appears once, under its first name. Raises ValueError for an unknown
    name or an empty selection.
    """
    everything = dict(model.named_parameters())
    if parameters is None:
        chosen = {n: p for n, p in everything.items() if p.requires_grad}
    elif callable(parameters):
        chosen = {n: p for n, p in everything.items() if parameters(n)}
    else:
        known = {id(p): n for n, p in everything.items()}
        aliases = dict(model.named_parameters(remove_duplicate=False))
        chosen = {}
        for item in [parameters] if isinstance(parameters, (str, Tensor)) else parameters:
            tensor = aliases.get(item) if isinstance(item, str) else item
            if id(tensor) not in known:
                what = repr(item) if isinstance(item, str) else f"of shape {tuple(item.shape)}"
                raise ValueError(f"parameter {what} is not in the model; it has: {', '.join(everything)}")
            chosen[known[id(tensor)]] = everything[known[id(tensor)]]
    if not chosen:
        raise ValueError("no parameter to compute curvature for: all are frozen or none was selected")
    return chosen


class Undisturbed:
    """Context: eval mode with gradients enabled; modes, buffers and requires_grad flags are put back after it.

    wanted: names of parameters that require gradients inside (all others do not); None leaves the flags alone.
    The lists of modules are made once, so that entering costs little for a small model.
    """

    def __init__(self, model: nn.Module, wanted: Iterable[str] | None = None):
        self.modules, self.buffers = list(model.modules()), list(model.buffers())
        self.compiled = any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in self.modules)
        names = None if wanted is None else set(wanted)
        named = model.named_parameters()
        self.flags = [] if names is None else [(p, name in names) for name, p in named]

    def __enter__(self) -> None:
        self.trained = [m for m in self.modules if m.training]
        self.copies = [b.clone() for b in self.buffers]
        self.changed = [(p, p.requires_grad) for p, flag in self.flags if p.requires_grad != flag]
        self.contexts: list[Any] = []
        if self.compiled:  # a compiled graph would neither meet tracked parameters nor show its operations
            self.contexts.append(torch.compiler.set_stance("force_eager"))
        if torch.is_inference_mode_enabled():
            self.contexts.append(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            self.contexts.append(torch.enable_grad())
        for context in self.contexts:
            context.__enter__()
        # Not model.eval(): overridden versions may do more than switch the mode (merge adapters, for one).
        for module in self.trained:
            object.__setattr__(module, "training", False)
        for p, flag in self.changed:
            p.requires_grad_(not flag)

    def __exit__(self, *exception) -> None:
        for p, flag in self.changed:
            p.requires_grad_(flag)
        for module in self.trained:
            object.__setattr__(module, "training", True)
        for buffer, before in zip(self.buffers, self.copies, strict=True):
            if not torch.equal(buffer, before):
                with torch.no_grad():
                    buffer.copy_(before)
        for context in reversed(self.contexts):
            context.__exit__(*exception)
        del self.copies, self.trained, self.changed, self.contexts


def refuse_batch_statistics(model: nn.Module) -> None:
    """Raise `BatchStatistics` (a ValueError) if a batch norm has no stored statistics to use in eval mode."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise BatchStatistics(f"{type(module).__name__} {name!r}")


def batch_size(inputs: Any) -> int:
    """Number of samples: the length of the first tensor among the inputs. Raises ValueError if there is none."""
    if isinstance(inputs, Tensor) and inputs.dim():
        return inputs.shape[0]
    for leaf in pytree.tree_leaves(inputs):
        if isinstance(leaf, Tensor) and leaf.dim():
            return leaf.shape[0]
    raise ValueError("the inputs contain no tensor with a batch axis")


def select(inputs: Any, index: Tensor | slice, batch: int) -> Any:
    """The samples `index` of the inputs (a tensor, or any nesting of tuples, lists and dicts)."""

    def rows(leaf):
        return leaf[index] if isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == batch else leaf

    return pytree.tree_map(rows, inputs)


def move(inputs: Any, device: torch.device) -> Any:
    """Inputs on `device`, usable by autograd even if made in inference mode."""

    def one(leaf):
        if not isinstance(leaf, Tensor):
            return leaf
        leaf = leaf.detach().to(device, non_blocking=True)
        return leaf.clone() if leaf.is_inference() else leaf

    if isinstance(inputs, Tensor):  # the usual case, without walking a tree
        return one(inputs)
    return pytree.tree_map(one, inputs)


def outputs_of(model: nn.Module, inputs: Any) -> Tensor:
    """`model(inputs)`: tuples as positional and dicts as keyword arguments; the `logits` of structured outputs."""
    if isinstance(inputs, dict):
        out = model(**inputs)
    elif isinstance(inputs, (tuple, list)):
        out = model(*inputs)
    else:
        out = model(inputs)
    out = getattr(out, "logits", out)
    if not isinstance(out, Tensor):
        raise TypeError(f"the model must return a tensor or an object with `logits`, got {type(out).__name__}")
    return out


class Engine:
    """Per-sample gradients of one model. Keeps the layout of its forward pass between batches."""

    def __init__(self, model: nn.Module, parameters: Any = None):
        self.model = model
        self.wanted = wanted_parameters(model, parameters)
        self.places = Places(model)
        self.undisturbed = Undisturbed(model, self.wanted)
        self.steps: list | None = None
        self.unseen: set[str] = set()
        self._said: set[str] = set()

    @property
    def device(self) -> torch.device:
        """Where the wanted parameters live."""
        return next(iter(self.wanted.values())).device

    def sweep(self, inputs: Any, seeds: Seeds, consumer: Consumer) -> Tensor:
        """One forward pass, then one backward pass for each vector of `seeds(outputs)`. Returns the outputs.

        Call inside `with engine.undisturbed:`. Seeds have the shape of the outputs and describe the
        gradient of a loss *summed* over samples. Raises BatchStatistics where samples are coupled.
        """
        batch = batch_size(inputs)
        with ruled_modules(self.model):
            tape, outputs, lost = self._forward(inputs, batch, consumer)
        if tape is not None:
            for operation, names in tape.fallbacks.items():
                self._say(operation, f"(parameters {names}) has no rule; torch.func is used")
            tape.lost = lost
            consumer.begin(tape)
            # Backward goes where gradients are asked for: the tape's token, and parameters it has not seen.
            starts = [tape.token, *(t for n in self.unseen for t in (tape.tracked[n], self.wanted[n]))]
        passes: list[Tensor] = []
        values = outputs.detach()
        values = values if values.dtype == torch.float64 else values.float()
        iterator = iter(seeds(values))
        seed = next(iterator, None)
        while seed is not None:
            following = next(iterator, None)
            if lost:
                passes.append(seed)
            if tape is not None and outputs.requires_grad:
                tape.last = following is None
                with torch._C.DisableTorchFunctionSubclass():
                    torch.autograd.grad(
                        outputs, starts, seed.to(outputs.dtype), retain_graph=following is not None,
                        allow_unused=True,
                    )  # fmt: skip
                consumer.end()
            seed = following
        if tape is not None:
            tape.close()
        if lost:
            self._say(", ".join(sorted(lost)), "cannot be followed by any rule; samples are run one by one")
            self._one_by_one(inputs, batch, sorted(lost), passes, consumer)
        return values

    def _forward(self, inputs: Any, batch: int, consumer: Consumer) -> tuple[Tape | None, Tensor, set[str]]:
        """The tape and outputs of the forward pass, and the parameters that it could not follow."""
        for fresh in (self.steps is None, True):  # if the path is another than last time, look again
            try:
                if fresh:
                    self.steps = self._trace(inputs, batch)
                if fresh or not self.tape.current():
                    self.tape = Tape(self.places.parameters, self.wanted, self.steps, self.channels_last)
                tape = self.tape
                tape.start(batch, consumer.receive)
                with self.places.hold(tape.tracked):
                    outputs = outputs_of(self.model, inputs)
                if fresh:
                    self.unseen = tape.unseen(outputs)
                return tape, outputs, tape.opaque | self.unseen
            except UnknownLayout as unknown:
                reason = unknown
        self._say("the whole model", f"cannot be followed ({reason})")
        return None, outputs_of(self.model, inputs).detach(), set(self.wanted)

    def _trace(self, inputs: Any, batch: int) -> list:
        """Where the batch lies in every step that involves a parameter."""
        logs = []
        for samples in (2, 3):
            index = torch.arange(samples, device=self.device) % batch
            some = select(inputs, index, batch)
            tape = Tape(self.places.parameters, (), None)
            log = Log(DECOMPOSITIONS, samples)
            with self.places.hold(tape.tracked), log:
                outputs_of(self.model, some)
            logs.append((log, {id(t) for t in tape.tracked.values()}, tape))
        (two, tracked, _), (three, _, _) = logs
        # `view` refuses tensors laid out otherwise than the network's author had them.
        self.channels_last = self.device.type == "cpu" and Tensor.view not in {call[0] for call in two.calls}
        return steps_of(two, three, tracked)

    def _one_by_one(self, inputs, batch: int, names: list[str], passes: list[Tensor], consumer: Consumer) -> None:
        """The definition itself: one sample at a time through the unchanged model."""
        parameters = [self.wanted[n] for n in names]
        for i in range(batch):
            rows = slice(i, i + 1)
            out = outputs_of(self.model, select(inputs, rows, batch))
            for k, seed in enumerate(passes):
                gradients = torch.autograd.grad(
                    out,
                    parameters,
                    seed[rows].to(out.dtype),
                    retain_graph=k + 1 < len(passes),
                    allow_unused=True,
                )
                pairs = zip(parameters, gradients, strict=True)
                consumer.one_by_one(names, i, [torch.zeros_like(p) if g is None else g for p, g in pairs])

    def _say(self, what: str, message: str) -> None:
        """Warn once per engine."""
        if what not in self._said:
            self._said.add(what)
            warnings.warn(f"fisherexp.curvature: {what} {message}.", stacklevel=4)
