"""Sums and products that keep what they round off, against fractions; logarithms against mpmath."""

from fractions import Fraction

import mpmath
import torch

from fisherexp.special.double_double import log, two_product, two_sum

DRAW = torch.Generator().manual_seed(0)
A, B = (torch.randn(200, generator=DRAW, dtype=torch.float64) * 10.0 ** torch.randint(-9, 9, (200,)) for _ in range(2))


def test_nothing_is_lost_of_sums_and_products():
    for function, exact in ((two_sum, Fraction.__add__), (two_product, Fraction.__mul__)):
        for a, b, high, low in zip(A.tolist(), B.tolist(), *(part.tolist() for part in function(A, B)), strict=True):
            assert Fraction(high) + Fraction(low) == exact(Fraction(a), Fraction(b))
            assert abs(low) <= 2.0**-52 * abs(high)


def test_logarithms_have_twice_the_digits():
    high = torch.cat([A.abs(), 1 + torch.linspace(-0.3, 0.5, 41, dtype=torch.float64), torch.ones(1).double()])
    low = 1e-17 * high
    with mpmath.workdps(50):
        exact = [mpmath.log(mpmath.mpf(a) + mpmath.mpf(b)) for a, b in zip(high.tolist(), low.tolist(), strict=True)]
        found = [mpmath.mpf(a) + mpmath.mpf(b) for a, b in zip(*(p.tolist() for p in log((high, low))), strict=True)]
        worst = max(abs(a - b) / max(1, abs(b)) for a, b in zip(found, exact, strict=True))
        assert worst < 5e-18
        plain = max(abs(a - b) / max(1, abs(b)) for a, b in zip(high.log().tolist(), exact, strict=True))
        assert plain > 2e-17  # the control
