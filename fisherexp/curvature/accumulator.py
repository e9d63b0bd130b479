"""The diagonal Fisher of a model over batches, exact per sample or from squared batch gradients.

per_sample: F = (1/N) Σ_n Σ_s (J_nᵀ s)∘2, with the vectors s of the likelihood and label estimator
batch_mean: F = (1/B) Σ_b (∇ mean loss of batch b)∘2, the quantity most published code calls Fisher
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .accumulating import accumulate
from .choices import check_choice
from .diagonal import Estimator, FisherDiagonal
from .engine import Engine
from .finite import finite, first_non_finite
from .inputs import batch_size, move, outputs_of, returning, select, weighted
from .kernels import kernel
from .likelihood import LABELS, Likelihood
from .resolve import counted, resolve
from .rules.normalization import CoupledSamples
from .squares import SquaredSums
from .sums import zero_sums
from .undisturbed import refuse_batch_statistics

GRADIENTS = ("per_sample", "batch_mean")


class DiagonalAccumulator:
    """Accumulates the diagonal Fisher batch by batch; `result()` may be asked for at any time.

    labels: empirical (true labels) | pseudo (most likely) | sampled (drawn from the model, `samples` draws with
    the seed `seed`) | expected (exact expectation over the model's labels, by C-1 backward passes).
    gradients: per_sample (the Fisher) | batch_mean (square of each batch's mean gradient, batches counting once).
    group: of batch_mean, how many samples make a batch; what `update` is given is cut into such batches (the last may
    be smaller), which go through the model at once. None: what it is given is one batch.
    loss: "cross_entropy" (default), "gaussian", "sequence", "token", or a function (outputs, targets) → (N,).
    outputs: what of the model's result the loss is of, as a function; by default the result itself or its `logits`.
    parameters: None for all that require gradients, else names, tensors or a predicate on names.
    compiled: whether convolutions and linear layers over positions use the C++ kernel (`fisherexp.curvature.kernels`):
    "auto" if it has been built, True to build it, False. Results agree up to rounding; they say in `path` which it was.

    The model is evaluated in eval mode and left as it was: modes, buffers, .grad, requires_grad. No hook stays on
    it. Raises ValueError for unknown names, for batch norm without stored statistics under per_sample, and for
    NaN or infinity in a batch, naming batch and layer.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        labels: Literal["empirical", "pseudo", "sampled", "expected"] = "empirical",
        gradients: Literal["per_sample", "batch_mean"] = "per_sample",
        group: int | None = None,
        loss: Any = None,
        outputs: Callable[[Any], Tensor] | None = None,
        parameters: Any = None,
        samples: int = 1,
        seed: int = 0,
        compiled: bool | str = "auto",
    ):
        self.model, self.outputs = model, outputs
        check_choice("labels", labels, LABELS)
        self.labels, self.gradients = labels, check_choice("gradients", gradients, GRADIENTS)
        self.loss: Likelihood = resolve(loss, labels)
        if gradients == "batch_mean" and labels == "expected":
            raise ValueError(
                "the mean gradient expected under the model's own labels is zero; "
                "use labels='sampled' with batch_mean, or gradients='per_sample'"
            )
        if group is not None and (gradients == "per_sample" or group < 1):
            raise ValueError(f"group counts the samples of a batch of batch_mean, got {group} for {gradients}")
        self.group = group
        if gradients == "per_sample":
            refuse_batch_statistics(model)
        self.engine = Engine(model, parameters)
        self.engine.kernel, self.path = kernel(compiled, self.engine.device)
        self.samples = samples if labels == "sampled" else 1
        self.generator = torch.Generator(self.engine.device).manual_seed(seed)
        with torch.inference_mode(False):
            self._sums, self._checked = zero_sums(self.engine.wanted)
        self._squares = SquaredSums(self._sums)
        self._count = 0.0
        self._batch_size = 0
        self.batches = 0

    def __enter__(self) -> "DiagonalAccumulator":
        return self

    def __exit__(self, *exception) -> None:
        """Nothing to undo: every `update` leaves the model as it was."""

    def update(self, inputs: Any, targets: Tensor | None = None, weights: Tensor | None = None) -> None:
        """Add one batch.

        inputs: a tensor, a tuple of positional or a mapping of keyword arguments, samples first; targets: as the
        loss says (not needed for pseudo, sampled, expected); weights: (N,) non-negative weight or mask of each
        sample (a sample of weight 2 counts twice), for language models also (N, T) of each token.
        """
        with self.engine.undisturbed, returning(self.model, self.outputs):
            self._update(inputs, targets, weights)

    def _update(self, inputs: Any, targets: Tensor | None, weights: Tensor | None) -> None:
        device = self.engine.device
        inputs = move(inputs, device)
        targets = None if targets is None else move(targets, device)
        weights = None if weights is None else move(weights, device)
        size = batch_size(inputs)
        if self.labels == "empirical" and targets is None:
            raise ValueError("labels='empirical' needs targets")
        if weights is not None:
            inputs, targets, weights, size = weighted(inputs, targets, weights, size)
        inputs, targets, weights, size = counted(self.loss, self.labels, inputs, targets, weights, size)
        if not size:
            return
        if self.gradients == "per_sample":
            self._per_sample(inputs, targets, weights)
        elif self.group is None:
            self._batch_mean(inputs, targets, weights)
        else:
            self._batch_means(inputs, targets, weights, size)
        self._check_finite(inputs)
        self.batches += 1
        self._batch_size = max(self._batch_size, min(size, self.group or size))

    def _per_sample(self, inputs, targets, weights) -> None:
        def seeds(outputs: Tensor) -> Iterable[Tensor]:
            self._check_outputs(outputs, targets, inputs)
            for _ in range(self.samples):
                for s in self.loss.seeds(outputs, targets, self.labels, weights, self.generator):
                    yield s if self.samples == 1 else s / self.samples**0.5

        outputs = self.engine.sweep(inputs, seeds, self._squares)
        self._count += self.loss.count(outputs, targets, weights)

    def _batch_mean(self, inputs, targets, weights) -> None:
        outputs = outputs_of(self.model, inputs)
        outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
        self._check_outputs(outputs.detach(), targets, inputs)
        parameters = list(self.engine.wanted.values())
        self._squares.empty = False
        for draw in range(self.samples):
            y = targets
            if self.labels != "empirical":
                y = self.loss.draw(outputs.detach(), self.labels, self.generator)
            loss = self.loss.mean(outputs, y, weights)
            gradients = torch.autograd.grad(loss, parameters, retain_graph=draw + 1 < self.samples, allow_unused=True)
            for total, gradient in zip(self._sums.values(), gradients, strict=True):
                if gradient is not None:
                    total += gradient.to(total.dtype).square() / self.samples
        self._count += 1

    def _batch_means(self, inputs, targets, weights, size: int) -> None:
        """Batches of `group` samples, those of equal size at once; one at a time if samples meet in the model."""
        whole = size - size % self.group
        for start, stop in ((0, whole), (whole, size)):
            if start < stop:
                part = [None if t is None else select(t, slice(start, stop), size) for t in (inputs, targets, weights)]
                try:
                    self._at_once(*part, max(1, (stop - start) // self.group))
                except CoupledSamples:
                    for rows in torch.arange(stop - start).split(self.group):
                        self._batch_mean(*(None if t is None else select(t, rows, stop - start) for t in part))

    def _at_once(self, inputs, targets, weights, batches: int) -> None:
        """`batches` batches of equal size: a batch is one sample of the engine, with the gradient of its mean loss."""

        def seeds(outputs: Tensor) -> Iterable[Tensor]:
            self._check_outputs(outputs, targets, inputs)
            size = len(outputs) // batches
            for _ in range(self.samples):
                y = targets
                if self.labels != "empirical":
                    y = self.loss.draw(outputs, self.labels, self.generator)
                with torch.enable_grad():
                    z = outputs.detach().requires_grad_()
                    parts = zip(*(repeat(None) if t is None else t.split(size) for t in (z, y, weights)), strict=False)
                    loss = sum(self.loss.mean(*part) for part in parts)
                    (gradient,) = torch.autograd.grad(loss, z)
                yield gradient / self.samples**0.5

        self.engine.sweep(inputs, seeds, self._squares, batches)
        self._count += batches

    def _check_outputs(self, outputs: Tensor, targets: Tensor | None, inputs: Any) -> None:
        self.loss.check(outputs, targets)
        if not finite(outputs):
            self._refuse(inputs)

    def _check_finite(self, inputs: Any) -> None:
        """Vectors (biases, norms) only: every layer has or feeds one, and whole sums would cost a pass."""
        for sums in self._checked:
            if not finite(sums):
                self._refuse(inputs)

    def _refuse(self, inputs: Any) -> None:
        """Name the first layer whose output is not finite, else the parameter whose gradient is not."""
        where = first_non_finite(self.model, inputs)
        if where is None:
            bad = [n for n, s in self._sums.items() if not s.isfinite().all()]
            where = f"the gradient of parameter {bad[0]!r}" if bad else "the outputs"
        raise ValueError(f"NaN or infinity in batch {self.batches} (counting from 0), first in {where}")

    def result(self) -> FisherDiagonal:
        """The Fisher of everything added so far. Raises ValueError if nothing was, or if a sum is not finite."""
        return self._result()

    def _result(self, last: bool = False) -> FisherDiagonal:
        """last: nothing is added after it, so that large sums need not be copied."""
        if self._count == 0:
            raise ValueError("no samples were added")
        values = {}
        for name, total in self._sums.items():
            own = last and total.dim() > 1  # vectors lie in one tensor
            values[name] = total.contiguous().div_(self._count) if own else total.contiguous() / self._count
            if not finite(values[name]):  # while it is near the core
                raise ValueError(f"the squared gradients of parameter {name!r} are not finite")
        size = self._batch_size if self.gradients == "batch_mean" else None
        estimator = Estimator(self.labels, self.gradients, self.loss.name, size)
        return FisherDiagonal(values, estimator, self._count, self.path)

    def sums(self) -> dict[str, Tensor]:
        """The state as plain tensors, sums not copied: `sum.<parameter>` and `count` (add these over ranks), and
        `batch_size` (take the maximum) and `batches`. `load_sums` continues from them.
        """
        state = {f"sum.{n}": s for n, s in self._sums.items()}
        device = self.engine.device
        state["count"] = torch.tensor(self._count, dtype=torch.float64, device=device)
        state["batch_size"] = torch.tensor(self._batch_size, device=device)
        state["batches"] = torch.tensor(self.batches, device=device)
        return state

    def load_sums(self, state: dict[str, Tensor]) -> None:
        """Replace the state by what `sums` returned (reduced or restored). Raises ValueError on other names."""
        expected = {f"sum.{n}" for n in self._sums} | {"count", "batch_size", "batches"}
        if set(state) != expected:
            raise ValueError(f"state does not fit the accumulator: {sorted(set(state) ^ expected)}")
        for name, total in self._sums.items():
            total.copy_(state[f"sum.{name}"])
        self._squares.empty = False
        self._count = float(state["count"])
        self._batch_size, self.batches = int(state["batch_size"]), int(state["batches"])


def fisher_diagonal(
    model: nn.Module,
    batches: Iterable,
    *,
    labels: str = "empirical",
    gradients: str = "per_sample",
    group: int | None = None,
    loss: Any = None,
    inputs: Sequence[str] | Callable[[Any], Any] | None = None,
    targets: str | Callable[[Any], Any] = "labels",
    outputs: Callable[[Any], Tensor] | None = None,
    parameters: Any = None,
    samples: int = 1,
    seed: int = 0,
    compiled: bool | str = "auto",
) -> FisherDiagonal:
    """Diagonal Fisher of `model` over `batches`: (inputs, targets), (inputs, targets, weights) or mappings.

    inputs, targets: of a mapping, the names of what the model is called with (everything but the targets by default)
    and of the targets; or functions of a batch of any kind. The rest as in `DiagonalAccumulator`, errors too.
    """
    accumulator = DiagonalAccumulator(
        model,
        labels=labels,
        gradients=gradients,
        group=group,
        loss=loss,
        outputs=outputs,
        parameters=parameters,
        samples=samples,
        seed=seed,
        compiled=compiled,
    )
    return accumulate(accumulator, batches, inputs, targets)._result(last=True)
