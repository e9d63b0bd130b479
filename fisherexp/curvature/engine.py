"""Runs a model for its per-sample gradients, verifies them, and leaves no trace in it.

`Engine.sweep` performs one forward pass and one backward pass per seed vector, and hands each use of a parameter,
with the gradient it received, to a consumer: squared sums, norms, second moments, Kronecker factors. The first time
that a forward pass takes its way, and now and then after, what the consumer is given must satisfy the identity of
`identity` before it counts.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointError

from .backward import CHECKPOINTING, backward
from .consumer import Consumer, Seeds
from .following import Following, nobody
from .identity import Part, rounding
from .inputs import batch_size
from .layout import Layout
from .modules import ruled_modules
from .one_by_one import one_by_one
from .path import path_of
from .tape import Tape
from .verification import RuleFailed, Verification, Verified, both, evaluate, outputs_agree


class _Again(Exception):
    """The batch must be swept once more, in another way."""


class Engine(Following):
    """Per-sample gradients of one model, verified."""

    def _look_again(self) -> None:
        super()._look_again()
        self.verified = Verified(self.wanted.values())

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
                    except CheckpointError as error:  # where it is asked for what it has forgotten
                        raise RuntimeError(CHECKPOINTING) from error
            finally:
                self._part, self._sink = None, nobody  # nothing of a batch is kept

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
        path = path_of(outputs, tape.trail, tape.indices, self.layout.steps, self.storages, batch, samples)
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

    def _settle(self, check: Verification, inputs: Any, batch: int) -> None:
        """Return if the identity holds. Otherwise raise _Again with another layout or fewer parameters to follow, or
        CoupledSamples if samples influence each other.
        """
        wrong = check.wrong(self.model, inputs, batch)
        if not wrong:
            return
        if self.verified.contradicts(check) and not check.by_chance:
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
