"""Modified Bessel functions of large order: Debye's uniform expansions (DLMF 10.41.3-6).

With s = √(v² + x²) and t = v / s,

    I_v(x) ~ exp(s - v asinh(v/x)) / √(2π s) · Σ_k u_k(t) / v^k,    K_v(x) ~ √(π / 2s) exp(v asinh(v/x) - s) Σ (-1)^k …
    u_{k+1}(t) = ½ t² (1 - t²) u_k'(t) + ⅛ ∫₀ᵗ (1 - 5r²) u_k(r) dr

u_k(t) is t^k times a polynomial in t², so that u_k(t) / v^k = s^-k p_k(t²): no division by a small v. All functions
take float64 tensors of one shape with finite v, x > 0.
"""

from fractions import Fraction

import torch
from torch import Tensor

from fisherexp.special.double_double import log, two_product, two_sum

ORDERS = 13


def _next(u: dict[int, Fraction]) -> dict[int, Fraction]:
    """u_{k+1} from u_k, as power of t -> coefficient."""
    found: dict[int, Fraction] = {}
    for power, c in u.items():
        for shift, factor in (
            (1, Fraction(power, 2) + Fraction(1, 8 * (power + 1))),
            (3, -Fraction(power, 2) - Fraction(5, 8 * (power + 3))),
        ):
            found[power + shift] = found.get(power + shift, Fraction(0)) + c * factor
    return found


def _polynomials() -> tuple[list[list[float]], list[list[float]]]:
    """p_k for k ≤ 13 and those of w_k = u_k / 2 + t u_k', each by rising powers of t²."""
    u, values, slopes = {0: Fraction(1)}, [], []
    for k in range(ORDERS + 1):
        values.append([float(u[k + 2 * i]) for i in range(k + 1)])
        slopes.append([float(u[k + 2 * i] * (Fraction(1, 2) + k + 2 * i)) for i in range(k + 1)])
        u = _next(u)
    return values, slopes


VALUES, SLOPES = _polynomials()


def _horner(polynomials: list[list[float]], y: Tensor, w: Tensor) -> Tensor:
    """Σ_k w^(k+1) p_k(y)."""
    total = torch.zeros_like(y)
    for coefficients in reversed(polynomials):
        p = torch.full_like(y, coefficients[-1])
        for c in reversed(coefficients[:-1]):
            p = p * y + c
        total = (total + p) * w
    return total


def _exponent(v: Tensor, x: Tensor, s: Tensor) -> Tensor:
    """s - x - v asinh(v/x), without the difference of two large numbers where x is large."""
    share = v * (v / (s + x))
    # asinh(v/x), in a tenth of torch.asinh's time.
    angle = torch.where(v < 1e8 * x, ((v + share) / x).log1p(), (v + s).log() - x.log())
    return share - v * angle


def log_ive(v: Tensor, x: Tensor, orders: int) -> Tensor:
    """log(e^-x I_v(x)) by the first `orders` ≤ 13 terms."""
    s = torch.hypot(v, x)
    series = _horner(VALUES[1 : orders + 1], (v / s).square(), 1 / s)
    return _exponent(v, x, s) - 0.5 * (2 * torch.pi * s).log() + series.log1p()


def log_kve(v: Tensor, x: Tensor, orders: int) -> Tensor:
    """log(e^x K_v(x)) by the first `orders` ≤ 13 terms."""
    s = torch.hypot(v, x)
    series = _horner(VALUES[1 : orders + 1], (v / s).square(), -1 / s)
    return 0.5 * (torch.pi / 2 / s).log() - _exponent(v, x, s) + series.log1p()


def log_iv(v: Tensor, x: Tensor) -> Tensor:
    """log I_v(x) by 13 terms, exact to rounding also where it is near zero; for v, x < 1e100."""
    s = torch.hypot(v, x)
    series = _horner(VALUES[1:], (v / s).square(), 1 / s)
    return -_unscaled_exponent(v, x, s) - 0.5 * (2 * torch.pi * s).log() + series.log1p()


def log_kv(v: Tensor, x: Tensor) -> Tensor:
    """log K_v(x), as above."""
    s = torch.hypot(v, x)
    series = _horner(VALUES[1:], (v / s).square(), -1 / s)
    return _unscaled_exponent(v, x, s) + 0.5 * (torch.pi / 2 / s).log() + series.log1p()


def _unscaled_exponent(v: Tensor, x: Tensor, s: Tensor) -> Tensor:
    """v asinh(v/x) - s, large terms that may cancel: v log q - s with q = (v + s) / x, all in pairs."""
    (v_squared, v_rest), (x_squared, x_rest), (s_squared, s_rest) = (two_product(part, part) for part in (v, x, s))
    squares, rest = two_sum(v_squared, x_squared)
    s_low = ((squares - s_squared) + (rest + v_rest + x_rest - s_rest)) / (2 * s)  # of √(v² + x²), by Newton
    total, total_low = two_sum(v, s)
    q = total / x
    product, rest = two_product(q, x)
    angle, angle_low = log((q, ((total - product) - rest + total_low + s_low) / x))
    product, rest = two_product(v, angle)
    difference, lost = two_sum(product, -s)
    return difference + (lost + rest + v * angle_low - s_low)


def iv_ratio(v: Tensor, x: Tensor) -> Tensor:
    """I_{v+1}(x) / I_v(x), from the logarithmic derivative; relative error 1e-15 for v ≥ 25."""
    s = torch.hypot(v, x)
    y, w = (v / s).square(), 1 / s
    change = _horner(SLOPES[:ORDERS], y, w) / (1 + _horner(VALUES[1:], y, w))
    return x / (s + v) - (x / s) * change


def iv_ratio_gap(v: Tensor, x: Tensor) -> Tensor:
    """1 - I_{v+1}(x) / I_v(x), relative error as above however small it is."""
    s = torch.hypot(v, x)
    y, w = (v / s).square(), 1 / s
    change = _horner(SLOPES[:ORDERS], y, w) / (1 + _horner(VALUES[1:], y, w))
    return (v + v * (v / (s + x))) / (s + v) + (x / s) * change


def kv_ratio(v: Tensor, x: Tensor) -> Tensor:
    """K_{v+1}(x) / K_v(x), as above."""
    s = torch.hypot(v, x)
    y, w = (v / s).square(), -1 / s
    change = _horner(SLOPES[:ORDERS], y, w) / (1 + _horner(VALUES[1:], y, w))
    return (v + s) / x - (x / s) * change
