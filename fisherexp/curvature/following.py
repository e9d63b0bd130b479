"""Forward passes of one model with its parameters followed, and where the batch lies in them.

The layout is found out on a first batch, by a look at that batch itself or by small passes, or follows from the model's
code. It is kept, with the tape, until a forward pass takes another way.
"""

import warnings
from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from .backward import CHECKPOINTING
from .chain import proven_steps
from .identity import WHOLE, Part
from .inputs import outputs_of
from .layout import Layout, Log, Step, UnknownLayout, refuse_inner
from .look import Look
from .places import Places
from .rules import DECOMPOSITIONS, Use
from .rules.normalization import CoupledSamples
from .tape import Tape, Tracked
from .tracing import trace, views
from .undisturbed import Undisturbed, wanted_parameters
from .verification import evaluate


class _Checkpointed(NotImplementedError):
    """Layers would be evaluated again in backward."""


class Following:
    """Follows forward passes of `model`. Keeps the layout of the last between batches."""

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

    def _prove(self, inputs: Any) -> None:
        """Take the layout from the model's code, if that shows it: then there is nothing to find out or verify."""
        steps = proven_steps(self.model, inputs) if self.provable else None
        if steps != self.proven:
            self.layout = None if steps is None else Layout(steps, None)
            self.channels_last = self.allow_channels_last and self.device.type == "cpu"
            self.proven, self.tape, self.unseen = steps, None, set()

    def _deliver(self, use: Use, g: Tensor) -> None:
        """Hand on a gradient; to whom is known when the forward pass is over."""
        self._sink(use, g)

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
                self._sink = nobody  # gradients that the model itself takes in its forward pass
                with self.places.hold(tape.tracked, self.forwards):
                    outputs = outputs_of(self.model, inputs)
                if outputs.__class__ is Tracked:
                    raise UnknownLayout("its outputs seem to be computed from parameters alone")
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
            dense = (p for p in self.model.parameters() if p.layout is torch.strided)
            self.storages = {p.untyped_storage().data_ptr() for p in dense}
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


def nobody(use: Use, g: Tensor) -> None:
    """Receives what no one asked for."""
