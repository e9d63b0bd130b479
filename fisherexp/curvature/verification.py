"""When a sweep is verified by the identity of `identity`, and how: against the untouched model."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from . import randomness
from .identity import (
    DOUBT,
    Part,
    coupled,
    differing,
    norm,
    output_error,
    refuse_in_double,
    refuse_influence,
    rounding,
    same_outputs,
    tolerance,
)
from .inputs import outputs_of, select
from .path import Path
from .rules import Use
from .rules.normalization import CoupledSamples
from .sketch import Sketch
from .tape import pull_back

SINGLE, DOUBLE = torch.finfo(torch.float32).eps, torch.finfo(torch.float64).eps
NOW_AND_THEN = 64  # batches from one verification of a known way to the next


class Verified:
    """The ways a forward pass took for which the identity held."""

    def __init__(self, parameters: Iterable[Tensor]):
        self.parameters = list(parameters)
        self.known: dict[int, Path] = {}  # by key, those with which it held
        self.unchecked = 0  # batches since the last verification
        self.vacuous = False  # whether that one told nothing about some parameter,
        self.age = 0  # and how many batches ago it first did so
        self.versions = 0

    def covers(self, path: Path) -> bool:
        """Whether this way was verified and need not be again now; the batch is counted as one of those since then."""
        earlier = self.known.get(path.key)
        if earlier is None or self._due() or path.steps != earlier.steps or not path.same_indices(earlier.indices):
            return False
        self.unchecked, self.age = self.unchecked + 1, self.age + 1
        return True

    def add(self, check: "Verification") -> None:
        """The identity held for this one."""
        path = check.path
        self.known[path.key] = path._replace(indices=[i.clone() for i in path.indices])
        self.unchecked, self.age = 0, self.age + 1 if check.vacuous else 0
        self.vacuous, self.versions = check.vacuous, self._versions()

    def contradicts(self, check: "Verification") -> bool:
        """Whether a way like this one's was verified, and batches since then were taken on trust."""
        path, earlier = check.path, self.known.get(check.path.key)
        return bool(self.unchecked) and earlier is not None and earlier.steps == path.steps and not path.moves_rows()

    def _due(self) -> bool:
        """Whether a way that was verified is to be verified again: now and then, and soon where gradients of 0, of
        layers that are still switched off or of blank inputs, told nothing.
        """
        if self.unchecked >= NOW_AND_THEN:
            return True
        return self.vacuous and (self.age & (self.age - 1) == 0 or self._versions() != self.versions)

    def _versions(self) -> int:
        return sum(p._version for p in self.parameters)


class Verification:
    """Compares one sweep with the untouched model. `sums`: sketches of Σ_{n∈S} ε_n G_n by parameter, as gradients
    arrive.
    """

    def __init__(self, part: Part, path: Path, parameters: dict[str, Tensor], eps: float, seed: int):
        self.part, self.path, self.parameters, self.eps = part, path, parameters, eps
        generator = torch.Generator().manual_seed(seed)
        self.sketches = {name: Sketch(p, generator) for name, p in parameters.items()}
        self.sums: dict[str, Tensor] = {}
        self.seeds: Tensor | None = None
        self.vacuous = False  # whether a gradient was 0, which any mistake would be as well
        # Whether autograd's own gradients change with the batch by rounding alone: it moves a ReLU's input across 0.
        self.by_chance = False
        self.weights: Tensor | None = None

    def add_seed(self, seed: Tensor) -> None:
        """The sum of all seeds is verified: gradients are linear in them."""
        rows = seed[self.part.rows]
        self.seeds = rows if self.seeds is None else self.seeds + rows

    def receive(self, use: Use, g: Tensor) -> None:
        """Add a use's share to the sums."""
        uses = [(slot, h, [r for r in h.roots if r in self.sketches]) for slot, h in use.slots.items()]
        if not any(roots for *_, roots in uses):
            return
        g = use.grads(g)
        if self.weights is None:
            self.weights = self.part.sample_weights(g)
        weights = self.weights.to(g.dtype)
        for slot, handle, roots in uses:
            if handle.direct and roots:
                (root,) = roots
                self._add(root, use.sketched(slot, g, self.part.block, weights, self.sketches[root]))
            elif roots:
                total = use.weighted(slot, g, self.part.block, weights).unsqueeze(0)
                for root in roots:
                    self._add(root, self.sketches[root].of(pull_back(handle, root, total)[0]))

    def _add(self, root: str, share: Tensor) -> None:
        before = self.sums.get(root)
        self.sums[root] = share if before is None else before + share

    def wrong(self, model: nn.Module, inputs: Any, batch: int) -> list[str]:
        """The parameters for which the identity does not hold. Raises CoupledSamples where it is because samples
        influence each other's gradients.
        """
        names, doubt = self._compared()
        uncoupled = doubt and DOUBLE < self.eps <= SINGLE
        if uncoupled:
            uncoupled = refuse_in_double(model, inputs, batch, self.part, self.seeds, list(self.parameters))
        if names:
            with randomness.kept(self.seeds.device):  # the graph is used up
                self.part.evaluate(model, inputs, batch)
            parameters = {name: self.parameters[name] for name in names}
            try:
                refuse_influence(model, inputs, batch, self.part, self.seeds, parameters, self.eps)
            except CoupledSamples:
                if not uncoupled:
                    raise
                self.by_chance = True
        return names

    def _compared(self) -> tuple[list[str], bool]:
        """The parameters whose gradients differ, and whether there is doubt about one that seems not to."""
        if not self.parameters:
            return [], False
        sizes, rest = {}, dict(self.sums)

        def compare(name: str, gradient: Tensor) -> None:
            size = norm(gradient)
            sizes[name] = torch.hypot(sizes[name], size) if name in sizes else size
            if name in rest:
                rest[name] = rest[name] - self.sketches[name].of(gradient)

        self.part.hand_on(self.seeds, self.parameters, compare)
        errors = {name: norm(difference) for name, difference in rest.items()}
        self.vacuous = len(sizes) < len(self.parameters) or not all(sizes.values())
        return differing(sizes, errors, norm(self.part.weighted(self.seeds)), self.eps)


def outputs_agree(part: Part, outputs: Tensor, model: nn.Module, inputs: Any, batch: int, eps: float) -> bool:
    """Whether outputs of the whole batch are those of the untouched model, as far as a part tells. Raises
    CoupledSamples where its own change with the other samples.
    """
    error = output_error(outputs[part.rows], part.outputs)
    if error > tolerance(eps):  # some layers evaluate frozen weights otherwise where a log is kept
        with randomness.kept(outputs.device):
            part.evaluate(model, inputs, batch)
        error = output_error(outputs[part.rows], part.outputs)
    if error > tolerance(eps):
        whole = outputs_of(model, inputs).detach()
        if not same_outputs(whole[part.rows], part.outputs, eps):
            raise coupled("the outputs")
        return False
    if eps > DOUBLE and error > DOUBT * eps:
        with randomness.kept(outputs.device):
            refuse_in_double(model, inputs, batch, part, None, [])
    return True


class RuleFailed(RuntimeError):
    """A rule raised an error while it was being verified."""

    def __init__(self, names: set[str]):
        super().__init__(", ".join(sorted(names)))
        self.names = names


def both(check: Callable[[Use, Tensor], None], consume: Callable[[Use, Tensor], None]):
    """Feeds a verification and a consumer; an error from inside a rule is that rule's failure."""

    def receive(use: Use, g: Tensor) -> None:
        try:
            check(use, g)
            consume(use, g)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
            names = {root for handle in use.slots.values() for root in handle.roots}
            raise RuleFailed(names) from error

    return receive


def evaluate(
    part: Part,
    model: nn.Module,
    parameters: Iterable[Tensor],
    inputs: Any,
    batch: int,
    log: AbstractContextManager | None = None,
) -> None:
    """Evaluate a part by the untouched model, its first piece with `log` open. Raises CoupledSamples if random numbers
    decide about its outputs.
    """
    parameters = list(parameters)
    device = parameters[0].device
    with randomness.kept(device) as drawn:
        part.evaluate(model, inputs, batch, log)
        if drawn():
            eps, some = rounding(part.made[0], *parameters), select(inputs, part.rows, batch)
            again = lambda: outputs_of(model, some)  # noqa: E731
            if randomness.matters(again, lambda a, b: same_outputs(a, b, eps), device):
                raise coupled("the outputs")
