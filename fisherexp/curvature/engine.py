"""Runs a model for its per-sample gradients and leaves no trace in it.

`Engine.sweep` performs one forward pass and one backward pass per seed vector, and hands each use of a parameter,
with the gradient it received, to a consumer: squared sums, norms, second moments, Kronecker factors.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from .inputs import batch_size, move, outputs_of, select
from .layout import Log, Step, UnknownLayout, steps_of
from .modules import ruled_modules
from .rules import DECOMPOSITIONS, Use
from .tape import Places, Tape
from .undisturbed import Undisturbed, refuse_coupled, wanted_parameters

CHECKPOINTING = (
    "gradient checkpointing evaluates layers again in backward, where their parameters cannot be followed; "
    "turn it off while computing curvature"
)
Seeds = Callable[[Tensor], Iterable[Tensor]]


__all__ = ["Consumer", "Engine", "Undisturbed", "batch_size", "move", "outputs_of", "select", "wanted_parameters"]


def _run_backward(outputs: Tensor, seed: Tensor, starts: tuple[Tensor, ...], keep: bool) -> None:
    """`torch.autograd.grad(outputs, starts, seed, allow_unused=True)`, whose checks in Python take a small network
    as long as a layer."""
    torch.autograd.Variable._execution_engine.run_backward(
        (outputs,), (seed,), keep, False, starts, True, accumulate_grad=False
    )


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


class Engine:
    """Per-sample gradients of one model. Keeps the layout of its forward pass between batches."""

    def __init__(self, model: nn.Module, parameters: Any = None):
        self.model = model
        self.kernel: Callable | None = None  # of `.kernels`, where an accumulator wants it
        self.wanted = wanted_parameters(model, parameters)
        self.places, self._undisturbed = Places(model), Undisturbed(model, self.wanted)
        self.steps: list | None = None
        self.channels_last, self.allow_channels_last = False, True
        self.unseen: set[str] = set()
        self._said: set[str] = set()

    @property
    def device(self) -> torch.device:
        """Where the wanted parameters live."""
        return next(iter(self.wanted.values())).device

    @property
    def undisturbed(self) -> Undisturbed:
        """Context in which the model may be swept. A model whose modules or parameters were replaced is looked at
        again; raises ValueError if a wanted parameter has gone from it or has another shape.
        """
        if not self.places.current():
            now = dict(self.model.named_parameters())
            for name, p in self.wanted.items():
                if name not in now or now[name].shape != p.shape:
                    raise ValueError(f"parameter {name!r} was removed or reshaped after its accumulator was made")
            self.wanted.update((name, now[name]) for name in self.wanted)
            self.places, self._undisturbed = Places(self.model), Undisturbed(self.model, self.wanted)
            self.steps = None
        return self._undisturbed

    def sweep(self, inputs: Any, seeds: Seeds, consumer: Consumer, samples: int | None = None) -> Tensor:
        """One forward pass, then one backward pass for each vector of `seeds(outputs)`. Returns the outputs.

        samples: None for one to a row of the batch. A smaller number, which divides the batch, makes that many of
        it: each of them consecutive rows, whose gradients are summed.

        Call inside `with engine.undisturbed:`. Seeds have the shape of the outputs and describe the
        gradient of a loss *summed* over samples. Raises ValueError where samples influence each other.
        """
        batch = batch_size(inputs)
        samples = batch if samples is None else samples
        with ruled_modules(self.model):
            tape, outputs, lost = self._forward(inputs, batch, samples, consumer)
        values = outputs.detach()
        values = values if values.dtype == torch.float64 else values.float()
        if tape is None:
            passes = list(seeds(values))
        else:
            try:
                passes = self._backward(tape, outputs, lost, seeds(values), consumer)
            finally:
                tape.close()
        if lost:
            self._say(", ".join(sorted(lost)), "cannot be followed by any rule; samples are run one by one")
            self._one_by_one(inputs, batch, samples, sorted(lost), passes, consumer)
        return values

    def _backward(
        self, tape: Tape, outputs: Tensor, lost: set[str], seeds: Iterable[Tensor], consumer: Consumer
    ) -> list[Tensor]:
        """One backward pass for each seed; returns the seeds if some parameters are lost to the tape."""
        for operation, names in tape.fallbacks.items():
            self._say(operation, f"(parameters {names}) has no rule; torch.func is used")
        tape.lost = lost
        consumer.begin(tape)
        # Backward goes where gradients are asked for: the tape's token, and parameters it has not seen.
        starts = (tape.token, *(t for n in self.unseen for t in (tape.tracked[n], self.wanted[n])))
        passes: list[Tensor] = []
        iterator = iter(seeds)
        seed = next(iterator, None)
        while seed is not None:
            following = next(iterator, None)
            if lost:
                passes.append(seed)
            if outputs.requires_grad:
                tape.last = following is None
                try:
                    with torch._C.DisableTorchFunctionSubclass():
                        _run_backward(outputs, seed.to(outputs.dtype), starts, not tape.last)
                except CheckpointError as error:
                    raise RuntimeError(CHECKPOINTING) from error
                consumer.end()
            seed = following
        return passes

    def _forward(
        self, inputs: Any, batch: int, samples: int, consumer: Consumer
    ) -> tuple[Tape | None, Tensor, set[str]]:
        """The tape and outputs of the forward pass, and the parameters that it could not follow."""
        for fresh in (self.steps is None, True, True):  # if the path is another than last time, look again
            try:
                if fresh:
                    self.steps = self._trace(inputs, batch)
                if samples != batch:
                    _refuse_inner(self.steps)
                if fresh or not self.tape.current():
                    self.tape = Tape(self.places.parameters, self.wanted, self.steps, self.channels_last, self.kernel)
                    self.forwards = self.places.forwards(self.tape)
                tape = self.tape
                tape.start(samples, consumer.receive)
                with self.places.hold(tape.tracked, self.forwards):
                    outputs = outputs_of(self.model, inputs)
                if fresh:
                    self.unseen, checkpointed = tape.unseen(outputs)
                    if checkpointed:
                        raise NotImplementedError(CHECKPOINTING)
                return tape, outputs, tape.opaque | self.unseen
            except UnknownLayout as unknown:
                reason = unknown
            except RuntimeError:
                if not (self.channels_last and self.allow_channels_last):
                    raise
                self.allow_channels_last = False  # a hidden `view` may have refused the layout
        self._say("the whole model", f"cannot be followed ({reason})")
        return None, outputs_of(self.model, inputs).detach(), set(self.wanted)

    def _trace(self, inputs: Any, batch: int) -> list:
        """Where the batch lies in every step that involves a parameter."""
        logs, outputs = [], []
        for samples in (2, 3):
            index = torch.arange(samples, device=self.device) % batch
            some = select(inputs, index, batch)
            tape = Tape(self.places.parameters, (), None)
            log = Log(DECOMPOSITIONS, samples)
            with self.places.hold(tape.tracked), log:
                outputs.append(outputs_of(self.model, some).detach())
            logs.append((log, {id(t) for t in tape.tracked.values()}, tape))
        (two, tracked, _), (three, _, _) = logs
        refuse_coupled(*outputs)
        # `view` refuses tensors laid out otherwise than the network's author had them.
        plain = Tensor.view not in {call[0] for call in two.calls}
        self.channels_last = plain and self.allow_channels_last and self.device.type == "cpu"
        return steps_of(two, three, tracked)

    def _one_by_one(
        self, inputs, batch: int, samples: int, names: list[str], passes: list[Tensor], consumer: Consumer
    ) -> None:
        """The definition itself: one sample at a time through the unchanged model."""
        parameters, each = [self.wanted[n] for n in names], batch // samples
        for i in range(samples):
            rows = slice(i * each, (i + 1) * each)
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


def _refuse_inner(steps: Iterable[Step | UnknownLayout]) -> None:
    """Raise UnknownLayout where rows of the batch lie between others: consecutive ones are not together there."""
    for step in steps:
        if step.__class__ is Step and any(axis and not axis.outer for axis in (*step.inputs, step.output)):
            raise UnknownLayout("several rows make a sample, and the network lays others between them")
