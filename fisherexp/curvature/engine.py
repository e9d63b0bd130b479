"""Runs a model for its per-sample gradients, verifies them, and leaves no trace in it.

`Engine.sweep` performs one forward pass and one backward pass per seed vector, and hands each use of a parameter,
with the gradient it received, to a consumer: squared sums, norms, second moments, Kronecker factors. The first time
that a forward pass takes its way, and now and then after, what the consumer is given must satisfy the identity of
`identity` before it counts.
"""

import warnings
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from .backward import CHECKPOINTING, backward
from .chain import proven_steps
from .consumer import Consumer, Seeds
from .identity import WHOLE, Part, rounding
from .inputs import batch_size, outputs_of
from .layout import Layout, Log, Step, UnknownLayout, refuse_inner
from .look import Look
from .modules import ruled_modules
from .one_by_one import one_by_one
from .path import path_of
from .places import Places
from .rules import DECOMPOSITIONS, Use
from .rules.normalization import CoupledSamples
from .tape import Tape
from .tracing import trace, views
from .undisturbed import Undisturbed, wanted_parameters
from .verification import RuleFailed, Verification, Verified, both, evaluate, outputs_agree


class _Again(Exception):
    """The batch must be swept once more, in another way."""


class _Checkpointed(NotImplementedError):
    """Layers would be evaluated again in backward."""


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
        self.proven: list[Step] | None = None  # the layout, where it follows from the model's code,
        self.provable = True  # which may turn out to be another than a forward pass shows
        self.channels_last = False
        self.unseen: set[str] = set()
        self.distrusted: set[str] = set()  # parameters for which the identity failed
        self.fewest = 1  # samples of a part
        self.verified = Verified(self.wanted.values())
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
            self._prove(inputs)
            self._part: Part | None = None
            self._looking = True  # at the batch itself, to find out where it lies
            try:
                while True:
                    self._fresh = self._looked = False
                    try:
                        return self._attempt(inputs, seeds, consumer, batch, samples)
                    except _Again:
                        self._looking = False
            finally:
                self._part, self._sink = None, _nobody  # nothing of a batch is kept

    def _prove(self, inputs: Any) -> None:
        """Take the layout from the model's code, if that shows it: then there is nothing to find out or verify."""
        steps = proven_steps(self.model, inputs) if self.provable else None
        if steps != self.proven:
            self.layout = None if steps is None else Layout(steps, None)
            self.channels_last = self.allow_channels_last and self.device.type == "cpu"
            self.proven, self.tape, self.unseen = steps, None, set()

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
        self.verified.add(check)
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
        check: Verification | None,
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
            self._sink = consumer.receive if check is None else both(check.receive, consumer.receive)
            try:
                passes = self._backward(tape, outputs, lost, seeds(values), consumer, check)
            except RuleFailed as failed:
                self._distrust(failed.names)
            finally:
                tape.close()
        if check is not None and check.seeds is not None:
            self._settle(check, inputs, batch)
        if lost:
            if tape is not None or self.distrusted:
                self._say(", ".join(sorted(lost)), "cannot be followed by any rule; samples are run one by one")
            apart = {name: self.wanted[name] for name in sorted(lost)}
            one_by_one(self.model, apart, inputs, batch, samples, values, passes, consumer)

    def _verification(
        self, tape: Tape, outputs: Tensor, inputs: Any, batch: int, samples: int, lost: set[str]
    ) -> Verification | None:
        """The verification that this forward pass needs; None where one like it was verified, or where it is proven."""
        if self.proven is not None:
            return None
        path = path_of(outputs, tape.trail, tape.indices, self.layout.steps, batch, samples)
        if self._part is None and self.verified.covers(path):
            return None
        if not outputs.isfinite().all():
            return None  # refused elsewhere, by name
        everything = path.moves_rows()
        if self._part is None or (everything and len(self._part.order) <= samples):
            self._part = self._draw(batch, samples, everything)
            evaluate(self._part, self.model, self.wanted.values(), inputs, batch)
        eps = rounding(outputs, *self.wanted.values())
        if not outputs_agree(self._part, outputs, self.model, inputs, batch, eps):
            tape.close()
            self._distrust(set(self.wanted))
        followed = {name: p for name, p in self.wanted.items() if name not in lost}
        return Verification(self._part, path, followed, eps, self._generator.getrandbits(32))

    def _deliver(self, use: Use, g: Tensor) -> None:
        """Hand on a gradient; to whom is known when the forward pass is over."""
        self._sink(use, g)

    def _settle(self, check: Verification, inputs: Any, batch: int) -> None:
        """Return if the identity holds. Otherwise raise _Again with another layout or fewer parameters to follow, or
        CoupledSamples if samples influence each other.
        """
        wrong = check.wrong(self.model, inputs, batch)
        if not wrong:
            return
        if self.verified.contradicts(check):
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
        """From here on these parameters go one sample at a time, unless it was a look that found their layout."""
        if self._looked:
            self.layout = None
            raise _Again
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
        check: Verification | None,
    ) -> list[Tensor]:
        """One backward pass for each seed; returns the seeds if some parameters are lost to the tape."""
        for operation, names in tape.fallbacks.items():
            self._say(operation, f"(parameters {names}) has no rule; torch.func is used")
        tape.lost = lost
        consumer.begin(tape)
        # Backward goes where gradients are asked for: the tape's token, and parameters it has not seen.
        starts = (tape.token, *(t for n in self.unseen for t in (tape.tracked[n], self.wanted[n])))
        return backward(tape, outputs, starts, seeds, consumer, check, keep=bool(lost))

    def _forward(self, inputs: Any, batch: int, samples: int) -> tuple[Tape | None, Tensor, set[str]]:
        """The tape and outputs of the forward pass, and the parameters that it could not follow."""
        if set(self.wanted) <= self.distrusted:
            return None, outputs_of(self.model, inputs).detach(), set(self.wanted)
        tape = log = None
        for fresh in (self.layout is None, True, True, True):  # if the path is another than last time, look again
            look = None
            try:
                if fresh:
                    log, look = self._find_out(log, inputs, batch, samples)
                if samples != batch:
                    refuse_inner(self.layout.steps)
                tape = self._tape_of(look)
                tape.start(samples, self._deliver)
                self._sink = _nobody  # gradients that the model itself takes in its forward pass
                with self.places.hold(tape.tracked, self.forwards):
                    outputs = outputs_of(self.model, inputs)
                tape.look = None  # the steps are found
                if fresh:
                    self.unseen, checkpointed = tape.unseen(outputs)
                    if checkpointed:
                        raise _Checkpointed(CHECKPOINTING)
                return tape, outputs, tape.opaque | self.unseen | self.distrusted
            except UnknownLayout as unknown:
                reason = unknown
                if look is not None:
                    self._looking = False
                    if tape is not None:
                        tape.close()
                else:  # a sample alone may take a path of its own (positions that are not expanded)
                    log, self.fewest = None, 2
            except (CoupledSamples, _Checkpointed, torch.OutOfMemoryError):
                raise
            except Exception as error:
                if not isinstance(error, RuntimeError) or not (self.channels_last and self.allow_channels_last):
                    if tape is not None:
                        tape.close()
                    reason = error
                    break
                log, self.allow_channels_last = None, False  # a hidden `view` may have refused the layout
        self.layout = None
        outputs = outputs_of(self.model, inputs).detach()  # raises what the model itself does not bear
        why = str(reason).partition("\n")[0][:200]
        self._say("the whole model", f"cannot be followed ({why}); samples are run one by one")
        return None, outputs, set(self.wanted)

    def _find_out(self, log: Log | None, inputs: Any, batch: int, samples: int) -> tuple[Log, Look | None]:
        """Begin to find out where the batch lies: a look that does so while the batch passes, or None where passes on
        a part have told. log: of a part's pass, if there is one; returned as well."""
        self.provable, self.proven = self.proven is None and self.provable, None
        parameters = self.wanted.values()
        if log is None:
            self._part = self._draw(batch, samples, False)
            log = Log(DECOMPOSITIONS, len(self._part.pieces[0]))
            evaluate(self._part, self.model, parameters, inputs, batch, log)
            log.alive.clear()  # identities are told apart already
        look = Look(log, map(id, parameters), batch) if self._looking else None
        found = trace(self.model, parameters, self._part, log, inputs, batch) if look is None else None
        self.layout = found or Layout(look.steps, None)
        self.channels_last = not views(log) and self.allow_channels_last and self.device.type == "cpu"
        self.tape, self._fresh, self._looked = None, look is None, look is not None
        return log, look

    def _tape_of(self, look: Look | None) -> Tape:
        """The tape of the layout; that of the batch before where it still fits."""
        if self.tape is None or not self.tape.current():
            steps = look or self.layout.steps
            self.tape = Tape(self.wanted, steps, self.channels_last, self.kernel, self.model.buffers())
            self.forwards = self.places.forwards(self.tape)
        return self.tape

    def _draw(self, batch: int, samples: int, everything: bool) -> Part:
        """The samples by which a batch is verified."""
        everything |= (samples + 1) * self.size <= WHOLE or samples == 1
        return Part.draw(samples, batch // samples, everything, self._generator, self.device, self.fewest)

    def _say(self, what: str, message: str) -> None:
        """Warn once per engine."""
        if what not in self._said:
            self._said.add(what)
            warnings.warn(f"fisherexp.curvature: {what} {message}.", stacklevel=5)


def _nobody(use: Use, g: Tensor) -> None:
    """Receives what no one asked for."""
