"""What every curvature matrix can be asked: products, solves, quadratic form, diagonal, trace, and SciPy's algorithms.

A vector is a flat tensor (d,), parameters in the order of `like`, or tensors by parameter name; a result has the form
of the vector it came from. By name, every parameter of the matrix must be there, and others are ignored.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .vectors import Vector, ravel, unravel

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


class LinearMap(ABC):
    """A symmetric linear map on vectors over parameters; calling it is `matvec`."""

    @property
    @abstractmethod
    def like(self) -> Vector:
        """Names (where they are known), shapes, dtype and device of the vectors; the values mean nothing."""

    @abstractmethod
    def matvec(self, vector: Vector) -> Vector:
        """F v. Raises ValueError for a vector that does not fit."""

    def __call__(self, vector: Vector) -> Vector:
        return self.matvec(vector)

    @property
    def dim(self) -> int:
        """Number of parameters d."""
        like = self.like
        return sum(prod(part.shape) for part in ([like] if isinstance(like, Tensor) else like.values()))

    def linear_operator(self, damping: float = 0.0) -> "LinearOperator":
        """F + damping I as a SciPy LinearOperator (d, d) of float64, for `eigsh`, `cg` and their like.

        Products have the precision of the matrix, which moves between SciPy's memory and its own device.
        """
        from scipy.sparse.linalg import LinearOperator

        where = ravel(self.like)[:0]

        def product(vector):
            v = torch.from_numpy(vector.reshape(-1)).to(where)
            return ravel(self.matvec(v)).double().cpu().numpy() + damping * vector.reshape(-1)

        return LinearOperator((self.dim, self.dim), matvec=product, rmatvec=product, dtype="float64")

    def flat(self, vector: Vector) -> Tensor:
        """The vector as a flat tensor (d,)."""
        if isinstance(vector, Mapping):
            return ravel(self.named(vector))
        if vector.shape != (self.dim,):
            raise self._misfit(f"a tensor {tuple(vector.shape)}")
        return vector

    def named(self, vector: Vector) -> dict[str, Tensor]:
        """The vector as tensors by name, in the order of `like`."""
        like = self.like
        if isinstance(like, Tensor):
            raise ValueError(
                f"{type(self).__name__} knows no names: give a flat tensor ({self.dim},), or shapes= when it is made"
            )
        if isinstance(vector, Tensor):
            return unravel(self.flat(vector), like)
        for name, part in like.items():
            if name not in vector:
                raise self._misfit(f"one without {name!r}")
            if vector[name].shape != part.shape:
                raise self._misfit(f"{name!r} of shape {tuple(vector[name].shape)} for {tuple(part.shape)}")
        return {name: vector[name] for name in like}

    def _misfit(self, found: str) -> ValueError:
        names = [] if isinstance(self.like, Tensor) else list(self.like)
        named = f", or tensors by the names {', '.join(names[:3])}{', ...' * (len(names) > 3)}" if names else ""
        return ValueError(f"the vector does not fit: expected ({self.dim},), a flat tensor{named}; got {found}")


class CurvatureMatrix(LinearMap):
    """A symmetric matrix without negative eigenvalues, F: a Fisher in one of its approximations.

    `estimator` of each says which of the quantities called Fisher it is (None where the rows came without one).
    Damping is what is added to the diagonal of F, in the units of F: it is no part of F itself.
    """

    @abstractmethod
    def solve(self, vector: Vector, damping: float) -> Vector:
        """(F + damping I)⁻¹ v. Raises ValueError for a vector that does not fit and unless damping > 0."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """The diagonal (d,); `named` gives it by name."""

    def quadratic(self, vector: Vector) -> Tensor:
        """vᵀ F v, without a factor ½: a scalar, differentiable in v."""
        return (self.flat(vector) * ravel(self.matvec(vector))).sum()

    def trace(self) -> Tensor:
        """Σ of the diagonal, a scalar in float64."""
        return self.diagonal().sum(dtype=torch.float64)


def positive(damping: float) -> float:
    """The damping of a solve. Raises ValueError unless it is positive."""
    if not damping > 0:
        raise ValueError(
            f"damping must be positive, got {damping}: F is singular where no gradient reached. "
            "Call solve(vector, damping=1e-3), in the units of F"
        )
    return float(damping)
