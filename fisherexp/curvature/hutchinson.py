"""Diagonal of a symmetric operator from Rademacher probes, with its standard error.

E[z * (A z)] = diag(A) for independent signs z (Bekas, Kokiopoulou, Saad 2007; Hutchinson 1990 for the trace).
One probe's variance in entry i is the sum of A[i, j]^2 over j != i: what remains is off-diagonal mass, and a
squared difference of two estimates is biased upwards by it. Where the diagonal has a closed form (a linear
head: ``head_hessian_diagonal``) that is exact and cheaper.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .lanczos import Operator, Vector, ravel, unravel
from .mean_loss import Loss
from .products import CurvatureOperator, ggn_operator, hessian_operator


@dataclass(frozen=True)
class DiagonalEstimate:
    """``mean`` and ``standard_error`` have the operator's form; the error is NaN for a single probe."""

    mean: Vector
    standard_error: Vector
    probes: int


def rademacher(like: Vector, generator: torch.Generator | None = None) -> Vector:
    """Independent signs -1 or +1 with the form, dtype and device of ``like``."""
    flat = ravel(like)
    device = flat.device if generator is None else generator.device
    # One random byte gives eight signs: drawing them one by one would cost more than a product of a small model.
    draws = torch.randint(256, (-(-len(flat) // 8), 1), dtype=torch.uint8, generator=generator, device=device)
    bits = (draws >> torch.arange(8, dtype=torch.uint8, device=device)) & 1
    return unravel(bits.flatten()[: len(flat)].to(flat) * 2 - 1, like)


def hutchinson_diagonal(
    operator: Operator,
    like: Vector,
    n_probes: int = 100,
    *,
    probes: Iterable[Vector] | None = None,
    generator: torch.Generator | None = None,
) -> DiagonalEstimate:
    """Estimates diag(A) of a callable ``operator`` on vectors formed like ``like``, one product per probe.

    ``probes`` replaces the random draws and ``n_probes``: the same probes give the same numbers, all 2^d sign
    vectors the exact diagonal. The mean is differentiable where the operator is.

    Raises:
        ValueError: no probe.
    """
    if probes is None:
        probes = (rademacher(like, generator) for _ in range(n_probes))
    samples = ((z := ravel(probe)) * ravel(operator(unravel(z, like))) for probe in probes)
    return _estimate(*_moments(samples), like)


def hutchinson_hessian_diagonal(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    n_probes: int = 100,
    *,
    parameters: Iterable[str] | None = None,
    gauss_newton: bool = False,
    probes: Iterable[Vector] | None = None,
    generator: torch.Generator | None = None,
) -> DiagonalEstimate:
    """Diagonal of the Hessian (or Gauss-Newton matrix) of the mean loss over all batches, by parameter name.

    The gradient graph of a batch is built once for all its probes. Each batch draws its own ``n_probes``, so
    the error also falls with the number of batches and memory does not grow with the number of probes. Given
    ``probes`` are used for every batch; their products are then all kept to obtain the error.

    Model, loss, batches and errors as in ``products``.
    """
    make = ggn_operator if gauss_newton else hessian_operator
    operator = make(model, loss, batches, parameters)
    like = operator.like
    if probes is not None:
        return _with_given_probes(operator, [ravel(probe) for probe in probes])
    mean = variance = torch.zeros_like(ravel(like))
    total = 0.0
    for product, weight in operator.graphs():
        samples = _samples(product, like, (ravel(rademacher(like, generator)) for _ in range(n_probes)))
        batch_mean, batch_variance, _ = _moments(samples)
        mean, variance = mean + weight * batch_mean, variance + weight**2 * batch_variance
        total += weight
    return _estimate(mean / total, variance / total**2, n_probes, like)


def _with_given_probes(operator: CurvatureOperator, probes: list[Tensor]) -> DiagonalEstimate:
    totals, weights = [torch.zeros_like(z) for z in probes], 0.0
    for product, weight in operator.graphs():
        for total, sample in zip(totals, _samples(product, operator.like, probes), strict=True):
            total.add_(sample, alpha=weight)
        weights += weight
    return _estimate(*_moments(total / weights for total in totals), operator.like)


def _samples(product, like: Vector, probes: Iterable[Tensor]) -> Iterator[Tensor]:
    for z in probes:
        image = product(list(unravel(z, like).values()))
        yield z * torch.cat([part.reshape(-1) for part in image])


def _moments(samples: Iterable[Tensor]) -> tuple[Tensor, Tensor, int]:
    """Mean, variance of the mean, and count, in one pass (Welford): no sum of squares to cancel."""
    count = 0
    for sample in samples:
        count += 1
        if count == 1:
            mean, squares = sample, torch.zeros_like(sample)
            continue
        before, mean = mean, mean.lerp(sample, 1 / count)
        squares.addcmul_((sample - before).detach(), (sample - mean).detach())
    if count == 0:
        raise ValueError("at least one probe is needed")
    unbiased = squares / (count - 1) if count > 1 else torch.full_like(squares, torch.nan)
    return mean, unbiased / count, count


def _estimate(mean: Tensor, variance: Tensor, probes: int, like: Vector) -> DiagonalEstimate:
    return DiagonalEstimate(unravel(mean, like), unravel(variance.sqrt(), like), probes)
