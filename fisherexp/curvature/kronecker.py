"""A Kronecker-factored curvature matrix, one block B ⊗ A a layer."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from .diagonal import Estimator
from .files import write
from .matrix import CurvatureMatrix, positive
from .vectors import Vector, in_form_of, ravel

FORMAT = "fisherexp.KFAC/1"


@dataclass(frozen=True)
class KroneckerFactor:
    """One block B ⊗ A. a: (inputs [+ 1], same); b: (outputs, same); weight, bias: parameter names.

    A convolution with groups of channels has one such block for each: a and b then have the groups as first axis.
    """

    a: Tensor
    b: Tensor
    weight: str
    bias: str | None
    shape: torch.Size

    def matrix(self, delta: Mapping[str, Tensor]) -> Tensor:
        """The layer's parameters as one (outputs, inputs [+ 1]) matrix, or one for each group."""
        rows = self.b.shape[:-1]
        matrix = delta[self.weight].reshape(*rows, -1)
        return matrix if self.bias is None else torch.cat([matrix, delta[self.bias].reshape(*rows, 1)], -1)

    def by_name(self, matrix: Tensor) -> dict[str, Tensor]:
        """The inverse of `matrix`."""
        if self.bias is None:
            return {self.weight: matrix.reshape(self.shape)}
        return {self.weight: matrix[..., :-1].reshape(self.shape), self.bias: matrix[..., -1].flatten()}

    @cached_property
    def eigen(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Eigenvalues (not below zero) and eigenvectors of b, then of a: found once, for every solve."""
        (left, u), (right, v) = torch.linalg.eigh(self.b), torch.linalg.eigh(self.a)
        return left.clamp_min(0), u, right.clamp_min(0), v

    def product(self, matrix: Tensor) -> Tensor:
        """B M A for M as `matrix` gives it, in the wider precision of both."""
        dtype = torch.promote_types(matrix.dtype, self.a.dtype)
        return self.b.to(dtype) @ matrix.to(dtype) @ self.a.to(dtype)

    def solve(self, matrix: Tensor, damping: float) -> Tensor:
        """The X with B X A + damping X = M."""
        dtype = torch.promote_types(matrix.dtype, self.a.dtype)
        left, u, right, v = (part.to(dtype) for part in self.eigen)
        scale = left.unsqueeze(-1) * right.unsqueeze(-2) + damping
        return u @ ((u.mT @ matrix.to(dtype) @ v) / scale) @ v.mT

    def diagonal(self) -> Tensor:
        """The diagonal of the block, as `matrix` gives the parameters."""
        return _diagonal(self.b).unsqueeze(-1) * _diagonal(self.a).unsqueeze(-2)

    def dense(self) -> Tensor:
        """The block as a matrix over `matrix(δ).flatten()`; for small layers."""
        if self.a.dim() == 2:
            return torch.kron(self.b, self.a)
        return torch.block_diag(*(torch.kron(b, a) for b, a in zip(self.b, self.a, strict=True)))


def _diagonal(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1)


@dataclass(frozen=True)
class KFAC(CurvatureMatrix):
    """Kronecker-factored Fisher. factors: by weight name; skipped: wanted parameters without a factor.

    Vectors are over the parameters that have a factor: of each layer the weight, then the bias.
    """

    factors: dict[str, KroneckerFactor]
    skipped: tuple[str, ...]
    estimator: Estimator
    approximation: str
    count: float

    @property
    def like(self) -> dict[str, Tensor]:
        """Names and shapes of the parameters that have a factor."""
        out: dict[str, Tensor] = {}
        for f in self.factors.values():
            zero = f.a.new_zeros(())
            out[f.weight] = zero.expand(f.shape)
            if f.bias is not None:
                out[f.bias] = zero.expand(f.shape[0])
        return out

    def matvec(self, vector: Vector) -> Vector:
        """F v: B M A of each layer. Raises ValueError for a vector that does not fit."""
        delta, out = self.named(vector), {}
        for f in self.factors.values():
            out |= f.by_name(f.product(f.matrix(delta)))
        return in_form_of(vector, out)

    def solve(self, vector: Vector, damping: float) -> Vector:
        """(F + damping I)⁻¹ v, exactly, by the eigenvectors of both factors, which are kept.

        Raises ValueError for a vector that does not fit and unless damping > 0.
        """
        delta, out, damping = self.named(vector), {}, positive(damping)
        for f in self.factors.values():
            out |= f.by_name(f.solve(f.matrix(delta), damping))
        return in_form_of(vector, out)

    def trace(self) -> Tensor:
        """Σ of the diagonal, a scalar in float64."""
        traces = [_diagonal(f.a.double()).sum(-1) * _diagonal(f.b.double()).sum(-1) for f in self.factors.values()]
        return torch.stack([t.sum() for t in traces]).sum()

    def diagonal(self) -> Tensor:
        """The diagonal (d,); `named` gives it by name."""
        return ravel({n: v for f in self.factors.values() for n, v in f.by_name(f.diagonal()).items()})

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
