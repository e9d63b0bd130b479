"""The diagonal of a Fisher information matrix, by parameter name, with the estimator it came from."""

import json
import os
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from .choices import check_choice
from .files import write
from .matrix import CurvatureMatrix, positive
from .vectors import Vector, in_form_of, ravel

FORMAT = "fisherexp.FisherDiagonal/1"


@dataclass(frozen=True)
class Estimator:
    """Which of the quantities called "Fisher" this is.

    labels: empirical | pseudo | sampled | expected; gradients: per_sample | batch_mean; loss: name;
    batch_size: samples per batch for batch_mean, of which it is a part, else None.
    """

    labels: str
    gradients: str
    loss: str
    batch_size: int | None = None


@dataclass(frozen=True, eq=False)
class FisherDiagonal(CurvatureMatrix, Mapping):
    """F_j = mean of squared gradients, one tensor of each parameter's shape.

    values: tensors by parameter name; estimator: what was squared; count: number of samples (total weight) for
    per_sample, of batches for batch_mean, over which the mean was taken; path: whether the "plain" or the "compiled"
    path formed the sums, which is no part of what they are.
    """

    values_by_name: dict[str, Tensor]
    estimator: Estimator
    count: float
    path: str = "plain"

    # Mapping would compare tensors entry by entry, which has no truth value.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.values_by_name:
            check_choice("parameter", name, self.values_by_name)
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)

    def __contains__(self, name: object) -> bool:
        return name in self.values_by_name

    def items(self) -> ItemsView[str, Tensor]:
        """(name, tensor) pairs."""
        return self.values_by_name.items()

    @property
    def like(self) -> dict[str, Tensor]:
        """The values themselves: they have the names and shapes of a vector."""
        return self.values_by_name

    @property
    def names(self) -> list[str]:
        """Parameter names."""
        return list(self.values_by_name)

    def matvec(self, vector: Vector) -> Vector:
        """F v: entry by entry."""
        return in_form_of(vector, {n: self[n] * v for n, v in self.named(vector).items()})

    def solve(self, vector: Vector, damping: float) -> Vector:
        """v_j / (F_j + damping). Raises ValueError for a vector that does not fit and unless damping > 0."""
        damping = positive(damping)
        return in_form_of(vector, {n: v / (self[n] + damping) for n, v in self.named(vector).items()})

    def diagonal(self) -> Tensor:
        """All entries, flat (d,)."""
        return ravel(self.values_by_name)

    def trace(self) -> Tensor:
        """Σ_j F_j, a scalar in float64: the mean squared norm of the gradients."""
        return torch.stack([v.sum(dtype=torch.float64) for v in self.values_by_name.values()]).sum()

    def quadratic(self, delta: Vector | nn.Module, origin: Vector | None = None) -> Tensor:
        """Σ_j F_j δ_j², without a factor ½; differentiable in δ.

        delta: displacement, flat or by parameter name; or, with `origin` (parameters, flat or by name), a model or
        vector from which the origin is subtracted. Raises ValueError where a parameter with curvature is missing.
        """
        if isinstance(delta, nn.Module):
            if origin is None:
                raise ValueError(
                    "a displacement is needed: call quadratic(model, origin={n: p.detach().clone() for n, p in "
                    "model.named_parameters()}) with the parameters to subtract"
                )
            delta = dict(delta.named_parameters())
        given, start = self.named(delta), None if origin is None else self.named(origin)
        total: Tensor | None = None
        for name, f in self.items():
            d = given[name] if start is None else given[name] - start[name]
            term = (f.to(d.dtype) * d.square()).sum() if f.dtype != torch.float64 else (f * d.square()).sum()
            total = term if total is None else total + term
        return total

    def map(self, function: Callable[[Tensor], Tensor]) -> "FisherDiagonal":
        """The same estimator with `function` applied to every tensor."""
        return replace(self, values_by_name={n: function(v) for n, v in self.items()})

    def to(self, *args, **kwargs) -> "FisherDiagonal":
        """Every tensor moved or cast as by `Tensor.to`."""
        return self.map(lambda v: v.to(*args, **kwargs))

    def __mul__(self, factor: float) -> "FisherDiagonal":
        return self.map(lambda v: v * factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "FisherDiagonal":
        return self.map(lambda v: v / divisor)

    def __add__(self, other: "FisherDiagonal") -> "FisherDiagonal":
        """Sum of values and counts: (n₁/n) F₁ + (n₂/n) F₂ is the Fisher of both data parts.

        Raises ValueError if the estimators or the parameters differ.
        """
        if not isinstance(other, FisherDiagonal):
            return NotImplemented
        if other.estimator != self.estimator:
            raise ValueError(f"different estimators: {self.estimator} and {other.estimator}")
        if set(other) != set(self):
            raise ValueError(f"different parameters: {sorted(set(self) ^ set(other))}")
        return replace(self, values_by_name={n: v + other[n] for n, v in self.items()}, count=self.count + other.count)

    @classmethod
    def combine(cls, parts: Iterable["FisherDiagonal"]) -> "FisherDiagonal":
        """The Fisher of the union of data parts: the mean of theirs, weighted by `count`."""
        parts = list(parts)
        if not parts:
            raise ValueError("nothing to combine")
        total = sum(p.count for p in parts)
        first, *others = (p * (p.count / total) for p in parts)
        for other in others:
            first = first + other
        return first

    def clamp(self, minimum: float | None = None, maximum: float | None = None) -> "FisherDiagonal":
        """Every entry limited to [minimum, maximum]."""
        return self.map(lambda v: v.clamp(minimum, maximum))

    def normalize(self, by: str = "trace") -> "FisherDiagonal":
        """Divided by the trace (entries sum to 1), the mean entry, or the max entry. Zero Fishers stay zero."""
        check_choice("normalization", by, ("trace", "mean", "max"))
        if by == "max":
            scale = torch.stack([v.max().double() for v in self.values_by_name.values()]).max()
        else:
            size = sum(v.numel() for v in self.values_by_name.values())
            scale = self.trace() / (size if by == "mean" else 1)
        return self if scale == 0 else self.map(lambda v: (v / scale).to(v.dtype))

    def tensors(self) -> dict[str, Tensor]:
        """The values: with `about`, all there is to store."""
        return dict(self.values_by_name)

    def about(self) -> dict[str, Any]:
        """Everything else, in plain containers."""
        return {"estimator": asdict(self.estimator), "count": float(self.count), "path": self.path}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> "FisherDiagonal":
        """From what `tensors` and `about` gave."""
        return cls(dict(tensors), Estimator(**about["estimator"]), about["count"], about.get("path", "plain"))

    def save(self, path: str | os.PathLike) -> None:
        """Write a safetensors file with the estimator in its header; a reader never sees a partial file."""
        header = {
            "format": FORMAT,
            "estimator": json.dumps(asdict(self.estimator)),
            "count": repr(float(self.count)),
            "path": self.path,
        }
        write(path, self.values_by_name, header)

    @classmethod
    def load(cls, path: str | os.PathLike, device: str | torch.device = "cpu") -> "FisherDiagonal":
        """Read what `save` wrote. Raises ValueError for a safetensors file of another kind."""
        with safe_open(path, "pt", device=str(device)) as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise ValueError(f"{path} is not a saved FisherDiagonal (format {header.get('format')!r})")
            values = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
        estimator = Estimator(**json.loads(header["estimator"]))
        return cls(values, estimator, float(header["count"]), header.get("path", "plain"))
