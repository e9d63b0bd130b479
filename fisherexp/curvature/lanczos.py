"""Extreme eigenpairs of a symmetric operator by Lanczos with full reorthogonalization.

Golub and Van Loan, Matrix Computations, §10.1-10.3. The operator is any callable that maps a vector to a
vector of the same form; a vector is a tensor or a dict of tensors addressed by parameter name, so a Hessian
product of a model and a matrix-free head Hessian are used in the same way.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from .choices import check_choice
from .vectors import Vector, ravel, unravel

Operator = Callable[[Vector], Vector]
Which = Literal["largest", "smallest", "magnitude"]


@dataclass(frozen=True)
class Eigenpairs:
    """Ritz pairs, best first: ``values`` (k,) float64 on the CPU, ``vectors`` k of the operator's form.

    ``residuals`` (k,) are the norms ||A v - value v|| that Lanczos predicts: each bounds the distance from
    its value to an eigenvalue. ``products`` counts the operator's evaluations.
    """

    values: Tensor
    vectors: list[Vector]
    residuals: Tensor
    products: int
    converged: bool


@torch.no_grad()
def extreme_eigenpairs(
    operator: Operator,
    like: Vector,
    k: int = 1,
    *,
    which: Which = "largest",
    tol: float = 1e-4,
    max_products: int = 200,
    generator: torch.Generator | None = None,
) -> Eigenpairs:
    """The ``k`` extreme eigenpairs of a symmetric ``operator`` on vectors formed like ``like``.

    Stops when every wanted Ritz pair has a residual below ``tol`` times its own magnitude, or at rounding
    level. ``which`` orders the pairs: algebraically largest, smallest, or largest in magnitude (the first is
    then the spectral norm). ``like`` gives names, shapes, dtype and device; its values are not read.

    Degenerate cases: fewer than ``k`` dimensions give as many pairs as there are dimensions; the zero
    operator gives zeros with orthonormal vectors; an exhausted Krylov space is continued from a fresh
    orthogonal direction until ``k`` pairs exist. One start vector sees one copy of a repeated eigenvalue.
    Memory: one vector per product.

    Raises:
        ValueError: ``k < 1``, an empty space, or ``which`` unknown.
        FloatingPointError: the operator returned NaN or infinity.

    Warns when ``max_products`` was reached before convergence.
    """
    check_choice("which", which, get_args(Which))
    template = ravel(like)
    dim = template.numel()
    if k < 1 or dim == 0:
        raise ValueError(f"lanczos needs k >= 1 and a non-empty space, got k={k} in {dim} dimensions")
    k = min(k, dim)
    limit = min(dim, max(k, max_products))
    eps = torch.finfo(template.dtype).eps

    basis = template.new_empty(min(limit, 16), dim)  # rows, doubled when full
    count = 0
    alphas: list[float] = []
    betas: list[float] = []
    vector = _fresh_direction(template, basis[:0], generator)
    while True:
        if count == len(basis):
            basis = torch.cat([basis, torch.empty_like(basis[: limit - count])])
        basis[count] = vector
        count += 1
        image = ravel(operator(unravel(vector, like)))
        alphas.append(torch.dot(image, vector).item())
        image = _orthogonalize(image, basis[:count])
        beta = image.norm().item()
        if not (abs(alphas[-1]) < float("inf") and beta < float("inf")):
            raise FloatingPointError(f"the operator returned NaN or infinity at product {count}")

        values, rotation = _ritz_pairs(alphas, betas, which)
        scale = values.abs().max().item()
        residuals = beta * rotation[-1].abs()
        threshold = (tol * values.abs()).clamp_min(100 * eps * scale)
        converged = count == dim or (count >= k and bool((residuals <= threshold)[:k].all()))
        if converged or count == limit:
            break
        exhausted = beta <= 10 * eps * scale  # the Krylov space is invariant; what is left is rounding
        betas.append(0.0 if exhausted else beta)
        vector = _fresh_direction(template, basis[:count], generator) if exhausted else image / beta

    if not converged:
        worst = (residuals[:k] / values[:k].abs().clamp_min(eps * scale)).max().item()
        warnings.warn(
            f"lanczos stopped after {limit} products with relative residual {worst:.1e} > tol={tol:.1e}; "
            "raise max_products or tol",
            stacklevel=3,
        )
    ritz = rotation[:, :k].T.to(template) @ basis[:count]
    vectors = [unravel(row / row.norm(), like) for row in ritz]
    return Eigenpairs(values[:k], vectors, residuals[:k], count, converged)


def _orthogonalize(vector: Tensor, basis: Tensor) -> Tensor:
    """Removes the rows of ``basis`` from ``vector``, twice: once leaves rounding behind."""
    for _ in range(2):
        vector = vector - basis.T @ (basis @ vector)
    return vector


def _fresh_direction(template: Tensor, basis: Tensor, generator: torch.Generator | None) -> Tensor:
    """A random unit vector orthogonal to ``basis``; a CPU generator draws the same on any device."""
    if generator is None:
        generator = torch.Generator().manual_seed(len(basis))
    noise = torch.randn(template.shape, generator=generator, dtype=torch.float64, device=generator.device)
    noise = _orthogonalize(noise.to(template), basis)
    return noise / noise.norm()


def _ritz_pairs(alphas: list[float], betas: list[float], which: Which) -> tuple[Tensor, Tensor]:
    """Eigenvalues (j,) of the tridiagonal matrix, wanted ones first, and their eigenvectors as columns."""
    off = torch.tensor(betas, dtype=torch.float64)
    tridiagonal = torch.diag(torch.tensor(alphas, dtype=torch.float64))
    if betas:
        tridiagonal += torch.diag(off, 1) + torch.diag(off, -1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    rank = {"largest": -values, "smallest": values, "magnitude": -values.abs()}[which]
    order = rank.argsort()
    return values[order], vectors[:, order]
