"""A Kronecker-factored curvature matrix: products, solves, quadratic form, diagonal, one block B ⊗ A a layer."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from .diagonal import Estimator
from .files import write

FORMAT = "fisherexp.KFAC/1"


@dataclass(frozen=True)
class KroneckerFactor:
    """One block B ⊗ A. a: (inputs [+ 1], same); b: (outputs, same); weight, bias: parameter names."""

    a: Tensor
    b: Tensor
    weight: str
    bias: str | None
    shape: torch.Size

    def matrix(self, delta: Mapping[str, Tensor]) -> Tensor:
        """The layer's parameters as one (outputs, inputs [+ 1]) matrix."""
        matrix = delta[self.weight].reshape(self.b.shape[0], -1)
        return matrix if self.bias is None else torch.cat([matrix, delta[self.bias].unsqueeze(1)], 1)

    def by_name(self, matrix: Tensor) -> dict[str, Tensor]:
        """The inverse of `matrix`."""
        if self.bias is None:
            return {self.weight: matrix.reshape(self.shape)}
        return {self.weight: matrix[:, :-1].reshape(self.shape), self.bias: matrix[:, -1]}


@dataclass(frozen=True)
class KFAC:
    """Kronecker-factored Fisher. factors: by weight name; skipped: wanted parameters without a factor."""

    factors: dict[str, KroneckerFactor]
    skipped: tuple[str, ...]
    estimator: Estimator
    approximation: str
    count: float

    def product(self, delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """F δ, by name, for the parameters that have a factor."""
        out: dict[str, Tensor] = {}
        for f in self.factors.values():
            out |= f.by_name(f.b @ f.matrix(delta) @ f.a)
        return out

    def solve(self, delta: Mapping[str, Tensor], damping: float) -> dict[str, Tensor]:
        """(F + damping I)⁻¹ δ, exactly, by the eigenvectors of both factors. Raises ValueError if damping <= 0."""
        if damping <= 0:
            raise ValueError(f"damping must be positive, got {damping}")
        out: dict[str, Tensor] = {}
        for f in self.factors.values():
            (left, u), (right, v) = torch.linalg.eigh(f.b), torch.linalg.eigh(f.a)
            scale = left.clamp_min(0)[:, None] * right.clamp_min(0) + damping
            out |= f.by_name(u @ ((u.mT @ f.matrix(delta) @ v) / scale) @ v.mT)
        return out

    def quadratic(self, delta: Mapping[str, Tensor]) -> Tensor:
        """δᵀ F δ, without a factor ½."""
        terms = [(f.matrix(delta) * (f.b @ f.matrix(delta) @ f.a)).sum() for f in self.factors.values()]
        return torch.stack(terms).sum()

    def trace(self) -> Tensor:
        """Σ of the diagonal."""
        return torch.stack([f.a.trace() * f.b.trace() for f in self.factors.values()]).sum()

    def diagonal(self) -> dict[str, Tensor]:
        """The diagonal, by parameter name."""
        out: dict[str, Tensor] = {}
        for f in self.factors.values():
            out |= f.by_name(f.b.diagonal()[:, None] * f.a.diagonal())
        return out

    def dense(self, weight: str) -> Tensor:
        """One block as a matrix over `matrix(δ).flatten()`; for small layers."""
        return torch.kron(self.factors[weight].b, self.factors[weight].a)

    def tensors(self) -> dict[str, Tensor]:
        """Both factors of every layer, as `a.<weight>` and `b.<weight>`: with `about`, all there is to store."""
        layers = self.factors.values()
        return {f"a.{f.weight}": f.a for f in layers} | {f"b.{f.weight}": f.b for f in layers}

    def about(self) -> dict[str, Any]:
        """Everything else, in plain containers."""
        layers = [{"weight": f.weight, "bias": f.bias, "shape": list(f.shape)} for f in self.factors.values()]
        about = {"layers": layers, "skipped": list(self.skipped), "estimator": asdict(self.estimator)}
        return about | {"approximation": self.approximation, "count": self.count}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> "KFAC":
        """From what `tensors` and `about` gave."""
        factors = {}
        for layer in about["layers"]:
            weight, shape = layer["weight"], torch.Size(layer["shape"])
            factors[weight] = KroneckerFactor(
                tensors[f"a.{weight}"], tensors[f"b.{weight}"], weight, layer["bias"], shape
            )
        estimator = Estimator(**about["estimator"])
        return cls(factors, tuple(about["skipped"]), estimator, about["approximation"], about["count"])

    def save(self, path: str | os.PathLike) -> None:
        """Write a safetensors file with the estimator in its header; a reader never sees a partial file."""
        write(path, self.tensors(), {"format": FORMAT, "about": json.dumps(self.about())})

    @classmethod
    def load(cls, path: str | os.PathLike, device: str | torch.device = "cpu") -> "KFAC":
        """Read what `save` wrote. Raises ValueError for a safetensors file of another kind."""
        with safe_open(path, "pt", device=str(device)) as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise ValueError(f"{path} is not a saved KFAC (format {header.get('format')!r})")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return cls.of(tensors, json.loads(header["about"]))
