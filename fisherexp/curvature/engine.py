"""Runs a model for its per-sample gradients, verifies them, and leaves no trace in it.

`Engine.sweep` performs one forward pass and one backward pass per seed vector, and hands each use of a parameter,
with the gradient it received, to a consumer: squared sums, norms, second moments, Kronecker factors. The first time
that a forward pass takes its way, and now and then after, what the consumer is given must satisfy the identity of
`identity` before it counts.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from . import randomness
from .identity import (
    DOUBT,
    WHOLE,
    Part,
    coupled,
    differing,
    fitting,
    refuse_in_double,
    refuse_influence,
    rounding,
    same_outputs,
)
from .inputs import batch_size, move, outputs_of, select
from .layout import Layout, Log, Step, UnknownLayout, layout_of
from .modules import ruled_modules
from .path import Path, path_of
from .rules import DECOMPOSITIONS, Use
from .rules.normalization import CoupledSamples
from .tape import Places, Tape, pull_back
from .undisturbed import Undisturbed, wanted_parameters

CHECKPOINTING = (
    "gradient checkpointing evaluates layers again in backward, where their parameters cannot be followed; "
    "turn it off while computing curvature"
)
SINGLE, DOUBLE = torch.finfo(torch.float32).eps, torch.finfo(torch.float64).eps
NOW_AND_THEN = 64  # batches from one verification of a known way to the next
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

    def trial(self) -> "Consumer":
        """A consumer of the same kind for a batch that is being verified."""

    def accept(self, trial: "Consumer") -> None:
        """Add what `trial`, the latest, was fed."""

    def reject(self, trial: "Consumer") -> None:
        """Forget what `trial`, the latest, was fed."""


class _Again(Exception):
    """The batch must be swept once more, in another way."""


class _Checkpointed(NotImplementedError):
    """Layers would be evaluated again in backward."""


class _RuleFailed(RuntimeError):
    """A rule raised an error while it was being verified."""

    def __init__(self, names: set[str]):
        super().__init__(", ".join(sorted(names)))
        self.names = names


class _Verification:
    """Compares one sweep with the untouched model. `sums`: Σ_{n∈S} ε_n G_n by parameter, as gradients arrive."""

    def __init__(self, part: Part, path: Path, names: list[str], eps: float):
        self.part, self.path, self.names, self.eps = part, path, names, eps
        self.sums: dict[str, Tensor] = {}
        self.seeds: Tensor | None = None
        self.vacuous = False  # whether a gradient was 0, which any mistake would be as well
        self.weights: Tensor | None = None

    def add_seed(self, seed: Tensor) -> None:
        """The sum of all seeds is verified: gradients are linear in them."""
        self.seeds = seed.clone() if self.seeds is None else self.seeds + seed

    def receive(self, use: Use, g: Tensor) -> None:
        """Add a use's share to the sums."""
        uses = [(slot, h, [r for r in h.roots if r in self.names]) for slot, h in use.slots.items()]
        if not any(roots for *_, roots in uses):
            return
        g = use.grads(g)
        if self.weights is None:
            self.weights = self.part.sample_weights(g)
        for slot, handle, roots in uses:
            if not roots:
                continue
            total = use.weighted(slot, g, self.part.block, self.weights.to(g.dtype))
            for root in roots:
                share = total if handle.direct else pull_back(handle, root, total.unsqueeze(0))[0]
                before = self.sums.get(root)
                self.sums[root] = share if before is None else before + share

    def wrong(self, wanted: dict[str, Tensor]) -> tuple[list[str], bool]:
        """The parameters for which the identity does not hold, and whether there is doubt about one that seems to."""
        if not self.names:
            return [], False
        expected = self.part.gradients(self.seeds, [wanted[n] for n in self.names])
        self.vacuous = any(g is None or not g.any() for g in expected)
        return differing(self.sums, self.names, expected, self.part.seeds(self.seeds), self.eps)


class Engine:
    """Per-sample gradients of one model. Keeps the layout of its forward pass between batches."""

    def __init__(self, model: nn.Module, parameters: Any = None):
        self.model = model
        self.kernel: Callable | None = None  # of `.kernels`, where an accumulator wants it
        self.wanted = wanted_parameters(model, parameters)
        for name, p in self.wanted.items():
            if p.is_complex():
                raise ValueError(f"parameter {name!r} is complex; the squares of its gradients are not defined here")
        self._generator = Random(0)
        self._said: set[str] = set()
        self.allow_channels_last = True
        self._look_again()

    def _look_again(self) -> None:
        """Forget all that was found out about the model."""
        self.places, self._undisturbed = Places(self.model), Undisturbed(self.model, self.wanted)
        self.layout: Layout | None = None
        self.channels_last = False
        self.unseen: set[str] = set()
        self.distrusted: set[str] = set()  # parameters for which the identity failed
        self.verified: dict[int, list[Tensor]] = {}  # paths: the indices with which the identity held
        self.unchecked = 0  # batches since the last verification
        self.vacuous = False  # whether that one told nothing about some parameter,
        self.age = 0  # and how many batches ago it first did so
        self.versions = 0
        self.size = sum(p.numel() for p in self.wanted.values())

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
            self._look_again()
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
            self._part: Part | None = None
            try:
                while True:
                    self._fresh = False
                    try:
                        return self._attempt(inputs, seeds, consumer, batch, samples)
                    except _Again:
                        continue
            finally:
                self._part, self._sink = None, _nobody  # nothing of a batch is kept

    def _attempt(self, inputs: Any, seeds: Seeds, consumer: Consumer, batch: int, samples: int) -> Tensor:
        """One try of a sweep. Raises _Again where the identity failed and another way is left."""
        tape, outputs, lost = self._forward(inputs, batch, samples)
        if outputs.dim() == 0 or outputs.shape[0] != batch:
            raise ValueError(f"the model returned outputs {tuple(outputs.shape)} for a batch of {batch} samples")
        values = outputs.detach()
        values = values if values.dtype == torch.float64 else values.float()
        check = None if tape is None else self._verification(tape, outputs, inputs, batch, samples, lost)
        if check is None:
            self._feed(tape, outputs, values, seeds, consumer, None, lost, inputs, batch, samples)
            return values
        trial = consumer.trial()
        try:
            self._feed(tape, outputs, values, seeds, trial, check, lost, inputs, batch, samples)
        except BaseException:
            consumer.reject(trial)
            raise
        consumer.accept(trial)
        self.verified[check.path.key] = [i.clone() for i in check.path.indices]
        self.unchecked, self.age = 0, self.age + 1 if check.vacuous else 0
        self.vacuous, self.versions = check.vacuous, self._versions()
        if self.layout.other is not None:  # an order was left open: find it out anew next time
            self.layout = None
        return values

    def _feed(
        self,
        tape: Tape | None,
        outputs: Tensor,
        values: Tensor,
        seeds: Seeds,
        consumer: Consumer,
        check: _Verification | None,
        lost: set[str],
        inputs: Any,
        batch: int,
        samples: int,
    ) -> None:
        """The backward passes, verified if there is a `check`, and what they cannot give."""
        passes: list[Tensor] = []
        if tape is None:
            passes = list(seeds(values))
        else:
            self._sink = consumer.receive if check is None else _both(check.receive, consumer.receive)
            try:
                passes = self._backward(tape, outputs, lost, seeds(values), consumer, check)
            except _RuleFailed as failed:
                self._distrust(failed.names)
            finally:
                tape.close()
        if check is not None and check.seeds is not None:
            self._settle(check, inputs, batch)
        if lost:
            if tape is not None or self.distrusted:
                self._say(", ".join(sorted(lost)), "cannot be followed by any rule; samples are run one by one")
            self._one_by_one(inputs, batch, samples, values, sorted(lost), passes, consumer)

    def _verification(
        self, tape: Tape, outputs: Tensor, inputs: Any, batch: int, samples: int, lost: set[str]
    ) -> _Verification | None:
        """The verification that this forward pass needs; None where one like it was verified already."""
        path = path_of(outputs, tape.trail, tape.indices, batch, samples)
        earlier = self.verified.get(path.key)
        if self._part is None and earlier is not None and not self._due() and path.same_indices(earlier):
            self.unchecked, self.age = self.unchecked + 1, self.age + 1
            return None
        if not outputs.isfinite().all():
            return None  # refused elsewhere, by name
        everything = path.moves_rows()
        if self._part is None or (everything and len(self._part.order) <= samples):
            self._part = self._draw(batch, samples, everything)
            self._evaluate(self._part, inputs, batch)
        eps = rounding(outputs, *self.wanted.values())
        part = self._part
        if not same_outputs(outputs[part.rows], part.outputs, eps):
            whole = outputs_of(self.model, inputs).detach()
            if not same_outputs(whole[part.rows], part.outputs, eps):
                raise coupled("the outputs")
            tape.close()
            self._distrust(set(self.wanted))
        if eps > DOUBLE and not same_outputs(outputs[part.rows], part.outputs, eps, DOUBT * eps):
            with randomness.kept(self.device):
                refuse_in_double(self.model, inputs, batch, part, None, [])
        return _Verification(part, path, [n for n in self.wanted if n not in lost], eps)

    def _due(self) -> bool:
        """Whether a way that was verified is to be verified again: now and then, and soon where gradients of 0, of
        layers that are still switched off or of blank inputs, told nothing.
        """
        if self.unchecked >= NOW_AND_THEN:
            return True
        return self.vacuous and (self.age & (self.age - 1) == 0 or self._versions() != self.versions)

    def _versions(self) -> int:
        return sum(p._version for p in self.wanted.values())

    def _deliver(self, use: Use, g: Tensor) -> None:
        """Hand on a gradient; to whom is known when the forward pass is over."""
        self._sink(use, g)

    def _settle(self, check: _Verification, inputs: Any, batch: int) -> None:
        """Return if the identity holds. Otherwise raise _Again with another layout or fewer parameters to follow, or
        CoupledSamples if samples influence each other.
        """
        wrong, doubt = check.wrong(self.wanted)
        if doubt and DOUBLE < check.eps <= SINGLE:
            refuse_in_double(self.model, inputs, batch, check.part, check.seeds, check.names)
        if not wrong:
            return
        refuse_influence(
            self.model, inputs, batch, check.part, check.seeds, {n: self.wanted[n] for n in wrong}, check.eps
        )
        if self.unchecked and check.path.key in self.verified and not check.path.moves_rows():
            raise RuntimeError(
                f"the gradients of {', '.join(wrong)} no longer agree with the untouched model, though this forward "
                "pass looks like one that was verified: batches since then may be wrong; start anew without them"
            )
        if not self._fresh:
            self.layout = None  # look again where the batch lies
        elif self.layout.other is not None:
            self.layout = Layout(self.layout.other, None)
            self.tape = None
        else:
            self._distrust(set(wrong))
        raise _Again

    def _distrust(self, names: set[str]) -> None:
        """From here on these parameters go one sample at a time."""
        if not names - self.distrusted:
            raise RuntimeError(f"the gradients of {', '.join(sorted(names))} cannot be computed")
        self.distrusted |= names
        raise _Again

    def _backward(
        self,
        tape: Tape,
        outputs: Tensor,
        lost: set[str],
        seeds: Iterable[Tensor],
        consumer: Consumer,
        check: _Verification | None,
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
            if check is not None:
                check.add_seed(seed)
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

    def _forward(self, inputs: Any, batch: int, samples: int) -> tuple[Tape | None, Tensor, set[str]]:
        """The tape and outputs of the forward pass, and the parameters that it could not follow."""
        if set(self.wanted) <= self.distrusted:
            return None, outputs_of(self.model, inputs).detach(), set(self.wanted)
        tape = None
        for fresh in (self.layout is None, True, True):  # if the path is another than last time, look again
            try:
                if fresh:
                    self.layout = self._trace(inputs, batch, samples)
                    self.tape = None
                    self._fresh = True
                if samples != batch:
                    _refuse_inner(self.layout.steps)
                if self.tape is None or not self.tape.current():
                    steps = self.layout.steps
                    self.tape = Tape(self.places.parameters, self.wanted, steps, self.channels_last, self.kernel)
                    self.forwards = self.places.forwards(self.tape)
                tape = self.tape
                tape.start(samples, self._deliver)
                self._sink = _nobody  # gradients that the model itself takes in its forward pass
                with self.places.hold(tape.tracked, self.forwards):
                    outputs = outputs_of(self.model, inputs)
                if fresh:
                    self.unseen, checkpointed = tape.unseen(outputs)
                    if checkpointed:
                        raise _Checkpointed(CHECKPOINTING)
                return tape, outputs, tape.opaque | self.unseen | self.distrusted
            except UnknownLayout as unknown:
                reason = unknown
            except (CoupledSamples, _Checkpointed, torch.OutOfMemoryError):
                raise
            except Exception as error:
                if not isinstance(error, RuntimeError) or not (self.channels_last and self.allow_channels_last):
                    if tape is not None:
                        tape.close()
                    reason = error
                    break
                self.allow_channels_last = False  # a hidden `view` may have refused the layout
        self.layout = None
        outputs = outputs_of(self.model, inputs).detach()  # raises what the model itself does not bear
        why = str(reason).partition("\n")[0][:200]
        self._say("the whole model", f"cannot be followed ({why}); samples are run one by one")
        return None, outputs, set(self.wanted)

    def _draw(self, batch: int, samples: int, everything: bool) -> Part:
        """The samples by which a batch is verified."""
        everything |= (samples + 1) * self.size <= WHOLE or samples == 1
        return Part.draw(samples, batch // samples, everything, self._generator, self.device)

    def _evaluate(self, part: Part, inputs: Any, batch: int) -> None:
        """Evaluate a part by the untouched model. Raises CoupledSamples if random numbers decide about its outputs."""
        with randomness.kept(self.device) as drawn:
            part.evaluate(self.model, inputs, batch)
            if drawn():
                eps, some = rounding(part.outputs, *self.wanted.values()), select(inputs, part.rows, batch)
                evaluate = lambda: outputs_of(self.model, some)  # noqa: E731
                if randomness.matters(evaluate, lambda a, b: same_outputs(a, b, eps), self.device):
                    raise coupled("the outputs")

    def _trace(self, inputs: Any, batch: int, samples: int) -> Layout:
        """Where the batch lies in every step that involves a parameter, from the untouched model on a part of the
        batch, which serves its verification too, and on two or three rows.
        """
        part = self._draw(batch, samples, False)
        few = 2 if len(part.rows) != 2 else 3
        rows = torch.tensor([*part.rows[:few].tolist(), *range(batch), 0, 0][:few], device=self.device)
        logs = [Log(DECOMPOSITIONS, size) for size in (len(part.rows), few)]
        with _requiring_gradients(self.places.parameters.values()):
            with logs[0]:
                self._evaluate(part, inputs, batch)
            with randomness.kept(self.device), logs[1]:
                outputs_of(self.model, select(inputs, rows, batch))
        self._part = part
        # `view` refuses tensors laid out otherwise than the network's author had them.
        plain = Tensor.view not in {call[0] for call in logs[0].calls}
        self.channels_last = plain and self.allow_channels_last and self.device.type == "cpu"
        return layout_of(*logs, {id(p) for p in self.places.parameters.values()})

    def _one_by_one(
        self,
        inputs: Any,
        batch: int,
        samples: int,
        values: Tensor,
        names: list[str],
        passes: list[Tensor],
        consumer: Consumer,
    ) -> None:
        """The definition itself: one sample at a time through the unchanged model.

        Raises CoupledSamples if a sample alone has other outputs than in its batch.
        """
        parameters, each = [self.wanted[n] for n in names], batch // samples
        eps = rounding(values, *parameters)
        for i in range(samples):
            rows = slice(i * each, (i + 1) * each)
            with randomness.kept(self.device):
                out = outputs_of(self.model, select(inputs, rows, batch))
            if out.dim() != values.dim() or not same_outputs(out, values[rows], eps):
                raise coupled("the outputs")
            for k, seed in enumerate(passes):
                gradients = [None] * len(parameters)
                if out.requires_grad:
                    gradients = torch.autograd.grad(
                        out,
                        parameters,
                        fitting(seed[rows], out).to(out.dtype),
                        retain_graph=k + 1 < len(passes),
                        allow_unused=True,
                    )
                pairs = zip(parameters, gradients, strict=True)
                consumer.one_by_one(names, i, [torch.zeros_like(p) if g is None else g for p, g in pairs])

    def _say(self, what: str, message: str) -> None:
        """Warn once per engine."""
        if what not in self._said:
            self._said.add(what)
            warnings.warn(f"fisherexp.curvature: {what} {message}.", stacklevel=5)


def _nobody(use: Use, g: Tensor) -> None:
    """Receives what no one asked for."""


def _both(check: Callable[[Use, Tensor], None], consume: Callable[[Use, Tensor], None]):
    """Feeds a verification and a consumer; an error from inside a rule is that rule's failure."""

    def receive(use: Use, g: Tensor) -> None:
        try:
            check(use, g)
            consume(use, g)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
            names = {root for handle in use.slots.values() for root in handle.roots}
            raise _RuleFailed(names) from error

    return receive


@contextmanager
def _requiring_gradients(parameters: Iterable[Tensor]) -> Iterator[None]:
    """All floating parameters require gradients: what is computed from frozen ones is followed as well."""
    changed = [p for p in parameters if p.is_floating_point() and not p.requires_grad]
    for p in changed:
        p.requires_grad_(True)
    try:
        yield
    finally:
        for p in changed:
            p.requires_grad_(False)


def _refuse_inner(steps: Iterable[Step | UnknownLayout]) -> None:
    """Raise UnknownLayout where rows of the batch lie between others: consecutive ones are not together there."""
    for step in steps:
        if step.__class__ is Step and any(axis and not axis.outer for axis in (*step.inputs, step.output)):
            raise UnknownLayout("several rows make a sample, and the network lays others between them")
