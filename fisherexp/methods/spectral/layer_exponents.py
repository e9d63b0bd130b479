"""The exponent α of each layer's weight spectrum, for methods that treat layers by it."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from fisherexp.metrics.fixed_aspect import as_matrices, eigenvalues, pooled
from fisherexp.metrics.power_law import Estimator, fit

Spectra = Literal["farms", "whole"]


@torch.no_grad()
def exponents(
    weights: Mapping[str, Tensor],
    spectra: Spectra = "farms",
    window: int | None = None,
    positions: int = 9,
    fewest: int = 10,
    estimator: Estimator = "hill",
) -> dict[str, float | None]:
    """α by name, of weights (m, n) or kernels (m, n, …). spectra: of windows (see metrics.fixed_aspect), or of the
    whole matrix, a kernel's places side by side. fewest: layers with fewer rows or columns get None: α says nothing; so
    do those whose tail is one value, whose α is infinite.
    estimator: see metrics.power_law; hill is of the larger half.
    """
    found = {}
    for name, weight in weights.items():
        weight = weight.detach()
        values = pooled(weight, window, positions) if spectra == "farms" else eigenvalues(weight.flatten(1))
        known = min(as_matrices(weight).shape[1:]) >= fewest and len(values) > 1
        alpha = float(fit(values, estimator).alpha) if known else math.inf
        found[name] = alpha if math.isfinite(alpha) else None
    return found


def along(alphas: Mapping[str, float | None], low: float, high: float) -> dict[str, float]:
    """Where each α lies between the smallest and the largest, as a number from `low` to `high`; the middle for None,
    and for all where all are equal."""
    known = [alpha for alpha in alphas.values() if alpha is not None]
    first, last = (min(known), max(known)) if known else (0.0, 0.0)

    def place(alpha: float | None) -> float:
        return 0.5 if alpha is None or last == first else (alpha - first) / (last - first)

    return {name: low + (high - low) * place(alpha) for name, alpha in alphas.items()}
