"""Power laws L(x) = A x^(-α) + E of losses in a size: fitted, with bootstrap intervals, and turned around.

As in "Pre-training under infinite compute" (Kim et al., ICLR 2026, arXiv 2509.14786), where x is the number of weights,
of tokens, or of members of an ensemble (then with α = 1), and recipes are compared by E.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import least_squares, nnls

EXPONENTS = np.geomspace(0.02, 5, 60)  # from which the best one is searched


class PowerLaw(NamedTuple):
    """scale: A ≥ 0. exponent: α. floor: E ≥ 0, the loss of an x without end."""

    scale: float
    exponent: float
    floor: float

    def __call__(self, x: ArrayLike) -> np.ndarray:
        return self.scale * np.asarray(x, float) ** -self.exponent + self.floor

    def size(self, loss: float) -> float:
        """The x with this loss; infinite where the law does not come down to it."""
        return (self.scale / (loss - self.floor)) ** (1 / self.exponent) if loss > self.floor else float("inf")


def fit_power_law(x: Sequence[float], losses: Sequence[float], exponent: float | None = None) -> PowerLaw:
    """Least squares. exponent: given, or fitted as well. Raises ValueError for no more sizes than unknowns."""
    x, losses = np.asarray(x, float), np.asarray(losses, float)
    unknowns = 3 if exponent is None else 2
    if len(set(x)) <= unknowns:
        raise ValueError(f"{len(set(x))} sizes are too few for a power law of {unknowns} unknowns")

    def given(exponent: float) -> tuple[float, PowerLaw]:
        (scale, floor), error = nnls(np.stack([x**-exponent, np.ones_like(x)], 1), losses)
        return error, PowerLaw(float(scale), float(exponent), float(floor))

    if exponent is not None:
        return given(exponent)[1]
    start = min(given(candidate) for candidate in EXPONENTS)[1]

    def off(unknown: np.ndarray) -> np.ndarray:
        return PowerLaw(*unknown)(x) - losses

    bounds = ([0, EXPONENTS[0], 0], [np.inf, EXPONENTS[-1], np.inf])
    inside = np.clip(start, [1e-12, EXPONENTS[0] * 1.001, 1e-12], [np.inf, EXPONENTS[-1] * 0.999, np.inf])
    found = least_squares(off, inside, bounds=bounds, x_scale="jac", ftol=1e-15, xtol=1e-15, gtol=1e-15)
    return PowerLaw(*map(float, found.x))


def bootstrap(
    x: Sequence[float], losses: np.ndarray, exponent: float | None = None, draws: int = 300, seed: int = 0
) -> list[PowerLaw]:
    """Laws fitted to the means of as many seeds as there are, drawn with replacement. losses: (seeds, sizes)."""
    generator = np.random.default_rng(seed)
    chosen = generator.integers(len(losses), size=(draws, len(losses)))
    return [fit_power_law(x, losses[rows].mean(0), exponent) for rows in chosen]


def interval(laws: Sequence[PowerLaw], name: str) -> tuple[float, float]:
    """What 95 % of the laws have as their scale, exponent or floor."""
    low, high = np.quantile([getattr(law, name) for law in laws], [0.025, 0.975])
    return float(low), float(high)


def data_efficiency(baseline: PowerLaw, better: PowerLaw, size: float) -> float:
    """How many times the data the baseline needs to do as well as the other law does with `size`."""
    return baseline.size(float(better(size))) / size
