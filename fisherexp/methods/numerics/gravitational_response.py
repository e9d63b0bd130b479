"""The Fisher information that signals of nearly monochromatic binaries carry about their parameters.

    h(t) = Re[E(t) exp(2πi f₀ t)],    E = A [(1 + cos²i) F₊ - 2i cos i F×] exp(i (Φ - 2π f₀ t)) = A W:D(t) exp(i φ(t))
    Φ(t) = φ₀ + 2π f t' + π ḟ t'²,    t' = t + n·r(t) / c,    Γ_ab = (1 / P_n) Σ_channels ∫ Re(∂_a E* ∂_b E) dt

n points to the source, r to the detector, which stays in the ecliptic plane; times begin with the observation. A source
enters by two forms alone, a complex tensor W, contracted with a channel's response D(t), and φ = uᵀ Q u of
u(t) = (1, t, x / c, y / c). The phase factor cancels in Γ, and what is left are products of 6 entries of D and 10 of
u uᵀ: their 60 × 60 integrals are taken once for all sources.

Parameters are dimensionless, in the order of PARAMETERS: frequency and its drift in units of 1/T and 1/T², times in
units of T. That makes the information well scaled; it is also brought to a unit diagonal before it is inverted.
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


def polarization(parameters: Sequence[Tensor]) -> Tensor:
    """W / A of n sources, real and imaginary part: (n, 2, 3, 3). parameters: eight tensors (n,); log_amplitude is
    relative to A."""
    log_amplitude, _, _, _, lon, sin_lat, cos_i, psi = (part[:, None] for part in parameters)
    cos_lat = (1 - sin_lat.square()).sqrt()
    east = torch.cat([-lon.sin(), lon.cos(), torch.zeros_like(lon)], dim=1)
    north = torch.cat([-sin_lat * lon.cos(), -sin_lat * lon.sin(), cos_lat], dim=1)
    m, q = psi.cos() * east + psi.sin() * north, psi.cos() * north - psi.sin() * east
    mm, qq, mq = (left[:, :, None] * right[:, None] for left, right in ((m, m), (q, q), (m, q)))
    real = (1 + cos_i.square())[:, None] * (mm - qq)
    imaginary = -2 * cos_i[:, None] * (mq + mq.transpose(1, 2))
    return log_amplitude.exp()[:, None, None] * torch.stack([real, imaginary], dim=1)


def phase_form(parameters: Sequence[Tensor], reference: Tensor) -> Tensor:
    """Q of n sources: (n, 4, 4), triangular in its first row. reference: f₀ (n,) in units of 1/T."""
    _, phase, f, fdot, lon, sin_lat, _, _ = parameters
    cos_lat, zero = (1 - sin_lat.square()).sqrt(), torch.zeros_like(f)
    retarded = torch.stack([zero, zero + 1, cos_lat * lon.cos(), cos_lat * lon.sin()], dim=1)  # t' = retarded · u
    first = 2 * math.pi * f[:, None] * retarded
    first = first + torch.stack([phase, -2 * math.pi * reference, zero, zero], dim=1)
    form = math.pi * fdot[:, None, None] * retarded[:, :, None] * retarded[:, None]
    return form + torch.nn.functional.pad(first[:, None], (0, 0, 0, 3))


def coefficients(form: Tensor) -> Tensor:
    """Of the products u_i u_j, i ≤ j, in uᵀ form u: (…, k, k) -> (…, k (k + 1) / 2)."""
    i, j = torch.triu_indices(*form.shape[-2:])
    return form[..., i, j] + torch.where(i < j, form[..., j, i], 0.0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a warning that torch's forward mode gives of torch's own code the first time it is used."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        yield


def jacobian(function: Callable[[Sequence[Tensor]], Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """Derivatives of function (n, …) by each parameter (n,), in forward mode: (P, n, …)."""
    slopes = []
    for number, parameter in enumerate(parameters):
        with _quiet(), forward_ad.dual_level():
            dual = forward_ad.make_dual(parameter, torch.ones_like(parameter))
            moved = function([*parameters[:number], dual, *parameters[number + 1 :]])
            slope = forward_ad.unpack_dual(moved).tangent
            slopes.append(torch.zeros_like(moved) if slope is None else slope)
    return torch.stack(slopes)


def integrals(seen: Observation, span: float) -> Tensor:
    """Σ_channels ∫ b bᵀ dt of the products b(t) of an entry of D and one of u uᵀ: (60, 60). span: T in seconds."""
    u = torch.stack([torch.ones_like(seen.t), seen.t / span, *(seen.place[:, :2].T / span)])
    i, j = torch.triu_indices(4, 4)
    k, l = torch.triu_indices(3, 3)  # noqa: E741
    products = seen.tensors[:, k, l, None] * (u[i] * u[j]) * seen.weights.sqrt()
    products = products.permute(1, 2, 0, 3).flatten(2).flatten(0, 1)
    return products @ products.T


def fisher(theta: Tensor, table: Tensor) -> Tensor:
    """P_n Γ / A² of sources theta (n, 8): (n, 8, 8). table: see `integrals`."""
    parameters = theta.unbind(1)
    real, imaginary = coefficients(polarization(parameters)).unbind(1)
    tensor_slopes = jacobian(lambda given: coefficients(polarization(given)), parameters)
    phase_slopes = jacobian(lambda given: coefficients(phase_form(given, parameters[2])), parameters)
    # ∂E = (∂W + i W ∂φ):D exp(i φ), and the first product of u is 1.
    turned = torch.stack([-imaginary, real], dim=1)[..., None] * phase_slopes[:, :, None, None]
    slopes = (turned + torch.nn.functional.pad(tensor_slopes[..., None], (0, 9))).flatten(3)
    slopes = slopes.permute(1, 0, 2, 3)  # (n, parameter, real and imaginary part, product)
    return torch.einsum("napk,nbpk->nab", slopes @ table, slopes)


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
