"""Numbers as unevaluated sums of two float64, some 32 digits: enough where 16 would cancel.

Sums: Knuth's two-sum; products: Dekker's (Numer. Math. 18, 1971), for torch has no fused multiply-add. Both are exact
while nothing overflows, which products do above 1e150. All functions take float64 tensors of one shape.
"""

from decimal import Decimal, localcontext

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]

SPLITTER = 2.0**27 + 1
INTERVALS = 128  # of the mantissa, between whose middles logarithms are tabulated


def two_sum(a: Tensor, b: Tensor) -> Pair:
    """a + b, rounded, and what was rounded off."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def two_product(a: Tensor, b: Tensor) -> Pair:
    """a b, rounded, and what was rounded off."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _halves(a: Tensor) -> Pair:
    scaled = SPLITTER * a
    high = scaled - (scaled - a)
    return high, a - high


def _tabulated() -> tuple[list[float], list[float]]:
    """log of k / INTERVALS for k = INTERVALS / 2 … INTERVALS, as pairs; the first is -log 2."""
    with localcontext(prec=40):
        exact = [(Decimal(k) / INTERVALS).ln() for k in range(INTERVALS // 2, INTERVALS + 1)]
        return [float(value) for value in exact], [float(value - Decimal(float(value))) for value in exact]


HIGH, LOW = _tabulated()


def log(number: Pair) -> Pair:
    """log of a positive number, with an error below 1e-18 beside that of its exponent's multiple of log 2."""
    mantissa, exponent = torch.frexp(number[0])
    nearest = (mantissa * INTERVALS).round()
    middle, place = nearest / INTERVALS, nearest.long() - INTERVALS // 2
    rest = (((mantissa - middle) + torch.ldexp(number[1], -exponent)) / middle).log1p()
    high, low = number[0].new_tensor(HIGH), number[0].new_tensor(LOW)
    doublings, rounded = two_product(exponent.to(mantissa), -high[0].expand_as(mantissa))
    total, first = two_sum(doublings, high[place])
    total, second = two_sum(total, rest)
    return total, first + second + (rounded + low[place] - exponent * low[0])
