"""The gradients of a batch's samples as one matrix M (N, d): its Gram matrix, products and rows.

Of a linear layer with one position a sample, G_n = g_n x_nᵀ is kept as its two factors, so that M is not formed unless
`rows` asks for it: ⟨G_n, G_m⟩ = (g_n·g_m)(x_n·x_m) and Σ_n w_n G_n = (w g)ᵀ x.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .choices import check_choice
from .engine import Engine
from .inputs import batch_size, move
from .resolve import resolve
from .rules.linear import Linear
from .squares import Gathered
from .undisturbed import refuse_batch_statistics

LABELS = ("empirical", "sampled")


@dataclass(frozen=True)
class SampleGradients:
    """Gradients of N samples. losses: (N,), theirs. shapes: of all parameters asked for by name, in order.

    outer: (x (N, inputs), g (N, outputs)) of a weight; whole: (N, *shape) of others; zero is what neither holds.
    """

    losses: Tensor
    shapes: dict[str, torch.Size]
    outer: dict[str, tuple[Tensor, Tensor]]
    whole: dict[str, Tensor]

    def gram(self) -> Tensor:
        """M Mᵀ (N, N) in float64."""
        total = torch.zeros(len(self.losses), len(self.losses), dtype=torch.float64, device=self.losses.device)
        known: dict[int, Tensor] = {}  # the factor g of a layer's weight is the gradient of its bias

        def of(rows: Tensor) -> Tensor:
            if id(rows) not in known:
                flat = rows.reshape(len(rows), -1).double()
                known[id(rows)] = flat @ flat.mT
            return known[id(rows)]

        for x, g in self.outer.values():
            total.addcmul_(of(x), of(g))
        for rows in self.whole.values():
            total += of(rows)
        return total

    def combined(self, weights: Tensor) -> dict[str, Tensor]:
        """Mᵀ w for weights (N,), by parameter name."""
        found = {}
        for name, shape in self.shapes.items():
            if name in self.outer:
                x, g = self.outer[name]
                found[name] = (g * weights.to(g)[:, None]).mT @ x
            elif name in self.whole:
                rows = self.whole[name]
                found[name] = torch.tensordot(weights.to(rows), rows, 1)
            else:
                found[name] = self.losses.new_zeros(shape)
        return found

    def rows(self) -> dict[str, Tensor]:
        """M by parameter name, (N, *shape): N times the memory of the parameters."""
        found = {}
        for name, shape in self.shapes.items():
            if name in self.outer:
                x, g = self.outer[name]
                found[name] = g[:, :, None] * x[:, None, :]
            elif name in self.whole:
                found[name] = self.whole[name]
            else:
                found[name] = self.losses.new_zeros(len(self.losses), *shape)
        return found


class PerSampleGradients:
    """The gradients of a model's samples, a batch a call; the model is evaluated in eval mode and left as it was.

    labels: the samples' own, or drawn from the model's predictions by `generator`. loss, parameters and errors: as in
    `DiagonalAccumulator`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        labels: Literal["empirical", "sampled"] = "empirical",
        loss: Any = None,
        parameters: Any = None,
        seed: int = 0,
    ) -> None:
        self.labels = check_choice("labels", labels, LABELS)
        self.loss = resolve(loss, labels)
        refuse_batch_statistics(model)
        self.engine = Engine(model, parameters)
        self.generator = torch.Generator(self.engine.device).manual_seed(seed)

    def __call__(self, inputs: Any, targets: Tensor) -> SampleGradients:
        with self.engine.undisturbed:
            inputs, targets = move(inputs, self.engine.device), move(targets, self.engine.device)
            found = _Collected(self.engine.wanted, batch_size(inputs))

            def seeds(outputs: Tensor) -> Iterable[Tensor]:
                self.loss.check(outputs, targets)
                return self.loss.seeds(outputs, targets, self.labels, None, self.generator)

            outputs = self.engine.sweep(inputs, seeds, found)
            losses = self.loss.losses(outputs, targets)
        shapes = {name: p.shape for name, p in self.engine.wanted.items()}
        return SampleGradients(losses.detach(), shapes, found.outer, found.whole)


class _Collected(Gathered):
    """Keeps what a sweep of one seed gives."""

    def __init__(self, names: Iterable[str], batch: int) -> None:
        super().__init__(names)
        self.batch = batch
        self.outer: dict[str, tuple[Tensor, Tensor]] = {}
        self.whole: dict[str, Tensor] = {}

    def trial(self):
        return _Collected(self.names, self.batch)

    def accept(self, trial):
        self.outer, self.whole = trial.outer, trial.whole

    def meet(self, root, uses):
        (use, slot, g), *others = uses
        if others or type(use) is not Linear or g.dim() != 2 or not use.slots[slot].direct:
            super().meet(root, uses)
        elif slot == "weight":
            self.outer[root] = (use.inputs(g.dtype).reshape(len(g), -1), g)
        else:
            self.whole[root] = g

    def take(self, root, rows, gradients):
        if root not in self.whole:
            self.whole[root] = gradients.new_zeros(self.batch, *gradients.shape[1:])
        self.whole[root][rows] += gradients
