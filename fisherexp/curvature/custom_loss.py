"""A user's own loss as a likelihood, and whether it keeps the samples of a batch apart."""

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor

from .inputs import select
from .likelihood import Likelihood, scaled


class Custom(Likelihood):
    """Any `loss(outputs, targets) -> (N,)` of per-sample losses; true labels only."""

    labels = ("empirical",)

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]):
        self.function, self.name = function, getattr(function, "__name__", type(function).__name__)
        self._verified: set[tuple] = set()  # shapes with which the loss was found to keep samples apart
        self._generator = Random(0)

    def losses(self, outputs, targets, weights=None):
        each = self.function(outputs, targets)
        if each.shape != outputs.shape[:1]:
            raise ValueError(
                f"loss must return one value per sample {tuple(outputs.shape[:1])}, got "
                f"{tuple(each.shape)} (use reduction='none')"
            )
        return each

    def seeds(self, outputs, targets, labels, weights, generator):
        gradient = self._gradient(outputs, targets)
        self._verify(outputs, targets, gradient)
        yield scaled(gradient, weights)

    def _gradient(self, outputs: Tensor, targets: Any) -> Tensor:
        """∂ Σ_n ℓ_n / ∂ outputs."""
        with torch.enable_grad():
            z = outputs.detach().requires_grad_()
            total = self.losses(z, targets).sum()
            if not total.requires_grad:
                raise ValueError(f"loss {self.name!r} has no gradient: nothing in it depends on the outputs")
            return torch.autograd.grad(total, z)[0]

    def _verify(self, outputs: Tensor, targets: Any, gradient: Tensor) -> None:
        """Raise ValueError if a part of the batch has other gradients alone: shapes that broadcast, a mean inside.

        A half and a quarter of the first batch of its shapes; of every later one a sample, since what a loss divides by
        may be the same for all parts of one batch and not of the next (the mean length of its texts).
        """
        shapes, batch = (outputs.shape, getattr(targets, "shape", None)), len(outputs)
        if batch < 2:
            return
        parts = [slice(0, batch // 2), slice(batch // 2, batch - batch // 4)]
        if shapes in self._verified:
            one = self._generator.randrange(batch)
            parts = [slice(one, one + 1)]
        for rows in parts:
            if self._mixes(outputs, targets, gradient, rows):
                found = " and ".join(str(tuple(shape)) for shape in shapes if shape is not None)
                raise ValueError(
                    f"loss {self.name!r} of a sample changes with the other samples of its batch: shapes {found} that "
                    "broadcast, or a mean over the batch"
                )
        self._verified.add(shapes)

    def _mixes(self, outputs: Tensor, targets: Any, gradient: Tensor, rows: slice) -> bool:
        """Whether the samples `rows` alone have other gradients. Small differences are settled in float64, as those of
        a loss near its minimum are all rounding.
        """
        whole, eps = gradient[rows].double(), torch.finfo(outputs.dtype).eps
        if not bool(whole.isfinite().all()):
            return False
        few = select(targets, rows, len(outputs))
        error = (self._gradient(outputs[rows], few).double() - whole).abs().max()
        if error <= eps**0.75 * whole.abs().max():
            return False
        try:
            whole, alone = self._gradient(outputs.double(), targets)[rows], self._gradient(outputs[rows].double(), few)
        except RuntimeError:
            return True  # a loss with tensors of its own takes their dtype only
        eps = torch.finfo(torch.float64).eps
        return not bool((alone - whole).abs().max() <= eps**0.5 * whole.abs().max() + 16 * eps)
