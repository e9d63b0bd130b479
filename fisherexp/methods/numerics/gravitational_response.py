"""Signals of nearly monochromatic binaries, and the Fisher information that they carry about their parameters.

    h(t) = Re[E(t) exp(2πi f₀ t)],    E = A [(1 + cos²i) F₊ - 2i cos i F×] exp(i (Φ - 2π f₀ t))
    Φ(t) = φ₀ + 2π f t' + π ḟ t'²,    t' = t + n·r(t) / c,    Γ_ab = (1 / P_n) Σ_channels ∫ Re(∂_a E* ∂_b E) dt

n points to the source, r to the detector, times begin with the observation. Without f₀, the slow envelope E needs few
samples. Parameters are dimensionless, in the order of PARAMETERS: frequency and its drift in units of 1/T and 1/T².
That makes the information well scaled; it is also brought to a unit diagonal before it is inverted.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fisherexp.methods.numerics.gravitational_detectors import Observation

PARAMETERS = ("log_amplitude", "phase", "frequency", "drift", "lon", "sin_lat", "cos_i", "psi")
AT_A_TIME = 16  # sources; their derivatives take some MB each


def envelope(parameters: Sequence[Tensor], reference: Tensor, span: float, seen: Observation) -> Tensor:
    """E / A of n sources: (n, channel, real and imaginary part, N).

    parameters: eight tensors (n,); log_amplitude is relative to A. reference: f₀ (n,) in units of 1 / span. span: T in
    seconds.
    """
    log_amplitude, phase, f, fdot, lon, sin_lat, cos_i, psi = (part[:, None] for part in parameters)
    cos_lat = (1 - sin_lat.square()).sqrt()
    source = torch.cat([cos_lat * lon.cos(), cos_lat * lon.sin(), sin_lat], dim=1)
    east = torch.cat([-lon.sin(), lon.cos(), torch.zeros_like(lon)], dim=1)
    north = torch.cat([-sin_lat * lon.cos(), -sin_lat * lon.sin(), cos_lat], dim=1)
    m, q = psi.cos() * east + psi.sin() * north, psi.cos() * north - psi.sin() * east
    mm, qq, mq = (left[:, :, None] * right[:, None] for left, right in ((m, m), (q, q), (m, q)))
    plus = torch.einsum("cijt,nij->nct", seen.tensors, mm - qq)
    cross = torch.einsum("cijt,nij->nct", seen.tensors, mq + mq.transpose(1, 2))
    passed, delay = seen.t / span, source @ seen.place.T / span
    angle = phase + 2 * math.pi * ((f - reference[:, None]) * passed + f * delay)
    angle = (angle + math.pi * fdot * (passed + delay).square())[:, None]
    turned = torch.stack([angle.cos(), angle.sin()], dim=2), torch.stack([-angle.sin(), angle.cos()], dim=2)
    real, imaginary = (1 + cos_i.square())[:, None] * plus, -2 * cos_i[:, None] * cross
    strength = log_amplitude.exp()[:, None, None]
    return strength * (real[:, :, None] * turned[0] + imaginary[:, :, None] * turned[1])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a warning that torch's forward mode gives of torch's own code the first time it is used."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        yield


def jacobian(signal: Callable[[Sequence[Tensor]], Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """Derivatives of signal (n, …) by each parameter (n,), in forward mode: (P, n, …)."""
    slopes = []
    for number, parameter in enumerate(parameters):
        with _quiet(), forward_ad.dual_level():
            dual = forward_ad.make_dual(parameter, torch.ones_like(parameter))
            moved = signal([*parameters[:number], dual, *parameters[number + 1 :]])
            slopes.append(forward_ad.unpack_dual(moved).tangent)
    return torch.stack(slopes)


def information(slopes: Tensor, weights: Tensor) -> Tensor:
    """Σ_t weights ∂_a E · ∂_b E over all parts of slopes (P, n, …, N): (n, P, P)."""
    weighted = (slopes * weights.sqrt()).transpose(0, 1).flatten(2)
    return weighted @ weighted.transpose(1, 2)


def fisher(theta: Tensor, span: float, seen: Observation) -> Tensor:
    """P_n Γ / A² of sources theta (n, 8): (n, 8, 8)."""
    parameters = theta.unbind(1)
    return information(jacobian(lambda given: envelope(given, parameters[2], span, seen), parameters), seen.weights)


def errors(gamma: Tensor) -> dict[str, Tensor]:
    """Standard deviations (n,) of each parameter by the inverse of Γ (n, 8, 8), and the sky area in square degrees.

    sky_area: 2π √(C_λλ C_ββ - C_λβ²) of longitude λ and β = sin(latitude), the solid angle of one standard deviation.
    Infinite where Γ is singular.
    """
    scale = gamma.diagonal(dim1=1, dim2=2).rsqrt()
    inverse, failed = torch.linalg.inv_ex(scale[:, :, None] * gamma * scale[:, None])
    covariance = scale[:, :, None] * inverse * scale[:, None]
    variances = covariance.diagonal(dim1=1, dim2=2)
    wrong = (failed != 0) | ~(variances > 0).all(1)
    found = dict(zip(PARAMETERS, variances.clamp(min=0).sqrt().unbind(1), strict=True))
    area = variances[:, 4] * variances[:, 5] - covariance[:, 4, 5].square()
    found["sky_area"] = 2 * math.pi * area.clamp(min=0).sqrt() * (180 / math.pi) ** 2
    return {name: part.masked_fill(wrong, math.inf) for name, part in found.items()}
