"""Modified Bessel functions of low order and moderate argument, where neither expansion for large ones holds.

I_v by its power series. K_v from K_μ and K_{μ+1} with |μ| ≤ ½ by the recurrence K_{w+1} / K_w = 2w/x + K_{w-1} / K_w,
which is stable upwards. These two come from Temme's series (J. Comput. Phys. 19, 1975) where x ≤ 1, and elsewhere from

    K_v(x) = ∫₀^∞ exp(-x cosh t) cosh(vt) dt,

for which the trapezoidal rule converges exponentially. All functions take float64 tensors of one shape with finite
v ≥ 0 and 0 < x ≤ 45.
"""

import math

import torch
from torch import Tensor

# 1 / Γ(1 + z) by rising powers of z (Abramowitz, Stegun 6.1.34), computed anew to 20 digits.
RECIPROCAL_GAMMA = (
    *(1.0, 0.57721566490153286061, -0.65587807152025388108, -0.042002635034095235529, 0.1665386113822914895),
    *(-0.042197734555544336748, -0.0096219715278769735621, 0.0072189432466630995424, -0.0011651675918590651121),
    *(-0.00021524167411497095282, 0.00012805028238811618615, -0.000020134854780788238656, -1.2504934821426706573e-6),
    *(1.1330272319816958824e-6, -2.0563384169776071035e-7, 6.1160951044814158179e-9, 5.0020076444692229301e-9),
    *(-1.1812745704870201446e-9, 1.0434267116911005105e-10, 7.782263439905071254e-12, -3.6968056186422057082e-12),
    *(5.100370287454475979e-13, -2.0583260535665067832e-14, -5.3481225394230179824e-15, 1.2267786282382607902e-15),
)
TEMME_TERMS = 13  # the last is 4^-13 / 13!² of the first at x = 1
# Steps of the trapezoidal rule up to x = 10 and up to 45: its error is exp(-2π² / (x step²)) < 1e-18.
COARSE, FINE = 1 / 7, 1 / 10
NEGLIGIBLE = 1e-18


def log_iv(v: Tensor, x: Tensor) -> Tensor:
    """log I_v(x) = v log(x/2) - log Γ(v+1) + log Σ_j (x²/4)^j / (j! (v+1)_j); all terms are positive."""
    quarter = (x / 2).square()
    terms, size = 1, float(quarter.detach().max())
    share = size
    while share > NEGLIGIBLE:
        terms += 1
        share *= size / terms**2
    total = torch.zeros_like(x)
    for j in range(terms, 0, -1):
        total = (total + 1) * (quarter / (j * (v + j)))
    return v * (x / 2).log() - torch.lgamma(v + 1) + total.log1p()


def kv(v: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """log(e^x K_v(x)) and K_{v+1}(x) / K_v(x), with as many recurrences as the largest v asks for."""
    steps = v.detach().round()
    order = v - steps
    value, ratio = torch.zeros_like(x), torch.zeros_like(x)
    for base, where in ((_temme, x <= 1), (_coarse, (x > 1) & (x <= 10)), (_fine, x > 10)):
        places = where.nonzero().squeeze(1)
        if len(places):
            first, second = base(order[places], x[places])
            value, ratio = value.index_copy(0, places, first), ratio.index_copy(0, places, second)
    # Of x K_{w+1} / K_w, which does not overflow: their product, and at the end the power of x. Where x is above 1, of
    # K_{w+1} / K_w itself: that power is large, and would leave its rounding to a small logarithm.
    factor, twice = x.clamp(max=1), 2 / x.clamp(min=1)
    ratio, product, square = factor * ratio, torch.ones_like(x), factor.square()
    for step in range(int(steps.max())):
        further = (step < steps).to(x)  # lerp by 0 or 1 takes one end or the other, in a tenth of torch.where's time
        product = torch.lerp(product, product * ratio, further)
        ratio = torch.lerp(ratio, twice * (order + step + 1) + square / ratio, further)
    return value + product.log() - steps * factor.log(), ratio / factor


def _temme(order: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The same of |order| ≤ ½ and x ≤ 1, before terms of it cancel."""
    square = order.square()
    odd, even = torch.zeros_like(x), torch.zeros_like(x)
    for c in reversed(RECIPROCAL_GAMMA[1::2]):
        odd = odd * square + c
    for c in reversed(RECIPROCAL_GAMMA[0::2]):
        even = even * square + c
    log_two_over_x = math.log(2) - x.log()
    sigma = order * log_two_over_x
    small = sigma.abs() < 1e-3
    regular = torch.where(small, 1.0, sigma)
    sinhc = torch.where(small, 1 + sigma.square() / 6 * (1 + sigma.square() / 20), regular.sinh() / regular)
    rise = sigma.exp()
    fall = 1 / rise
    above, below = even + order * odd, even - order * odd  # 1 / Γ(1 + order) and 1 / Γ(1 - order): together a sinc
    f = ((rise + fall) / -2 * odd + sinhc * log_two_over_x * even) / (above * below)
    p, q = rise / 2 / above, fall / 2 / below
    c, quarter = torch.ones_like(x), (x / 2).square()
    low, high = f, p
    for k in range(1, TEMME_TERMS + 1):
        f = (k * f + p + q) / (k * k - square)
        p, q, c = p / (k - order), q / (k + order), c * quarter / k
        low, high = low + c * f, high + c * (p - k * f)
    return low.log() + x, high * 2 / x / low


def _coarse(order: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return _integral(order, x, COARSE)


def _fine(order: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return _integral(order, x, FINE)


def _integral(order: Tensor, x: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """The same for 1 < x ≤ 45."""
    low, high = torch.ones_like(x), torch.ones_like(x)  # twice the sums
    # exp(±order t) by products: an exponential of its own for each node takes as long as all the rest.
    rise, fall = (order * step).exp(), (order * -step).exp()
    growth, decay = rise, fall
    smallest, node = float(x.detach().min()), 1
    while smallest * (math.cosh(node * step) - 1) - 1.5 * node * step < -math.log(NEGLIGIBLE):
        t = node * step
        weight = (x * (1 - math.cosh(t))).exp()
        low = torch.addcmul(low, weight, growth + decay)
        high = torch.addcmul(high, weight, torch.add(growth * math.exp(t), decay, alpha=math.exp(-t)))
        growth, decay, node = growth * rise, decay * fall, node + 1
    return (low * (step / 2)).log(), high / low
