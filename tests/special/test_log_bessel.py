"""Logarithms of Bessel functions against mpmath, closed forms and identities, and their derivatives by differences."""

import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from scipy import special
from scipy.special import kv
from torch.autograd import gradcheck, gradgradcheck

from fisherexp.special import debye, iv_ratio, iv_ratio_gap, kv_ratio, log_iv, log_ive, log_kv, log_kve, ranges
from fisherexp.special.debye import VALUES

INF, NAN = math.inf, math.nan
# One pair or more in each range of ranges.py and on both sides of each bound; for whole orders mpmath takes long.
PAIRS = [
    *((0.013, 1e-8), (0.03, 0.2), (0.5, 0.99), (1.4, 1.01), (7.9, 30.8), (12.6, 0.3), (13.12, 7.94), (9.1, 31.5)),
    *((0.02, 33.0), (20.1, 8.0), (31.7, 315.4), (60.1, 20.0), (64.5, 3.0), (3.2, 205.0), (180.3, 120.0)),
    *((900.6, 1300.0), (300.1, 0.7), (24.9, 30.0), (25.1, 30.0)),
]


def tensors(pairs):
    return torch.tensor(pairs, dtype=torch.float64).unbind(1)


def true_values(v, x):
    """log I, log K and both ratios; K from I_v and I_{-v}, so with digits enough for what cancels, and above that from
    our ratio by the Wronskian."""
    with mpmath.workdps(40 + round(0.9 * x) if x < 60 else 40):
        order, argument = mpmath.mpf(v), mpmath.mpf(x)
        i, above = mpmath.besseli(order, argument), mpmath.besseli(order + 1, argument)
        if x < 60:
            k = mpmath.pi / 2 * (mpmath.besseli(-order, argument) - i) / mpmath.sinpi(order)
        else:
            k = 1 / argument / (i * float(kv_ratio(v, x)) + above)
        k_above = (1 / argument - above * k) / i
        return mpmath.log(i), mpmath.log(k), above / i, k_above / k


@pytest.fixture(scope="module")
def truth():
    return [true_values(*pair) for pair in PAIRS]


def largest_error(found, expected):
    return max(float(abs(a - b) / max(1, abs(b))) for a, b in zip(found.tolist(), expected, strict=True))


def test_values_are_exact_to_rounding_in_every_range(truth):
    v, x = tensors(PAIRS)
    log_i, log_k, ratio, k_ratio = zip(*truth, strict=True)
    for found, expected in (
        (log_iv(v, x), log_i),
        (log_kv(v, x), log_k),
        (log_ive(v, x), [value - b for value, (_, b) in zip(log_i, PAIRS, strict=True)]),
        (log_kve(v, x), [value + b for value, (_, b) in zip(log_k, PAIRS, strict=True)]),
    ):
        assert largest_error(found, expected) < 1e-14
    gaps = [1 - value for value in ratio]
    for found, expected in ((iv_ratio(v, x), ratio), (iv_ratio_gap(v, x), gaps), (kv_ratio(v, x), k_ratio)):
        true = torch.tensor([float(value) for value in expected], dtype=torch.float64)
        torch.testing.assert_close(found, true, rtol=5e-15, atol=0)


def test_float32_is_the_float64_result_rounded_once():
    v, x = (part.float() for part in tensors(PAIRS))
    for function in (log_iv, log_kve, iv_ratio):
        found = function(v, x)
        assert found.dtype == torch.float32
        assert torch.equal(found, function(v.double(), x.double()).float())


def test_a_wrong_coefficient_is_seen(monkeypatch, truth):
    """The control of the bounds: with a coefficient of the expansion changed by a millionth, values are wrong."""
    v, x = tensors(PAIRS)
    monkeypatch.setattr(debye, "VALUES", [*VALUES[:2], [VALUES[2][0] * (1 + 1e-6), *VALUES[2][1:]], *VALUES[3:]])
    assert largest_error(log_ive(v, x), [t[0] - b for t, (_, b) in zip(truth, PAIRS, strict=True)]) > 1e-12


def test_debye_polynomials_are_the_published_ones():
    assert VALUES[1] == [3 / 24, -5 / 24]
    assert VALUES[2] == pytest.approx([81 / 1152, -462 / 1152, 385 / 1152], rel=1e-15)


def test_half_orders_have_closed_forms_at_any_size():
    x = torch.tensor([1e-12, 0.5, 3.0, 40.0, 700.0, 1e4, 1e8, 1e30], dtype=torch.float64)
    expected_i = (-torch.expm1(-2 * x)).log() - 0.5 * (2 * math.pi * x).log()
    torch.testing.assert_close(log_ive(0.5, x), expected_i, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(log_kve(0.5, x), 0.5 * (math.pi / 2 / x).log(), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(iv_ratio(0.5, x[1:]), 1 / x[1:].tanh() - 1 / x[1:], rtol=3e-15, atol=0)
    torch.testing.assert_close(iv_ratio_gap(0.5, x[5:]), 1 / x[5:], rtol=3e-15, atol=0)
    torch.testing.assert_close(kv_ratio(0.5, x), 1 + 1 / x, rtol=3e-15, atol=0)


def test_orders_far_beyond_scipys_reach():
    """Values to the three decimals printed for other implementations; at 1e6 the Wronskian and the recurrence."""
    found = log_iv(torch.tensor([1023.0, 4095.0, 16383.0]).double(), torch.tensor([500.0, 2000.0, 9000.0]).double())
    assert found.tolist() == pytest.approx([-363.478, -1445.685, -3598.874], abs=1e-3)
    v = torch.tensor([1e3, 1e4, 1e6, 0.2], dtype=torch.float64)
    x = torch.tensor([2e2, 3e4, 1e6, 1e8], dtype=torch.float64)
    product = (log_ive(v, x) + log_kve(v, x)).exp()
    torch.testing.assert_close(
        product * (kv_ratio(v, x) + iv_ratio(v, x)) * x, torch.ones(4).double(), rtol=1e-9, atol=0
    )
    torch.testing.assert_close(1 / iv_ratio(v, x), 2 * (v + 1) / x + iv_ratio(v + 1, x), rtol=1e-14, atol=0)
    torch.testing.assert_close(kv_ratio(v + 1, x), 2 * (v + 1) / x + 1 / kv_ratio(v, x), rtol=1e-14, atol=0)


def test_scipys_reference_values():
    """Values of its own tests of iv, kv (test_basic.py) and of the ratio of orders v and v - 1 (test_iv_ratio.py)."""
    for function, table in (
        (log_iv, [(1, 700, 1.528500390233901e302), (1000, 1120, 1.301564549405821e301), (-0.5, 1, 1.231200214592967)]),
        (
            log_kv,
            [
                *((0, 0.2, 1.7527038555281462), (1, 0.2, 4.775972543220472), (2, 0.2, 49.51242928773287)),
                *((32, 1, 1.7516596664574289e43), (-3.0, 2.2, float(kv(3.0, 2.2)))),
            ],
        ),
    ):
        v, x, expected = tensors(table)
        torch.testing.assert_close(function(v, x), expected.log(), rtol=2e-15, atol=2e-15)
    v, x, expected = tensors(
        [
            *((1, 0.3380952380952381, 0.1666773049170313), (1, 0.7083333333333333, 0.33366443586989925)),
            *((1, 1.1666666666666667, 0.5023355231537423), (1, 1.8666666666666665, 0.674616572252164)),
            *((1, 3.560606060606061, 0.844207659503163), (2.34, 0.7975238095238094, 0.16704903081553285)),
            *((2.34, 1.7133333333333334, 0.3360215931268845), (2.34, 2.953333333333333, 0.50681909317803)),
            *((2.34, 5.0826666666666656, 0.6755252698800679), (2.34, 10.869696969696973, 0.8379351104498762)),
            *((56.789, 19.46575238095238, 0.1667020505391409), (56.789, 42.55008333333333, 0.33353809996933026)),
            *((56.789, 75.552, 0.5003932381177826), (56.789, 135.76026666666667, 0.6670528221946127)),
            (56.789, 307.8642424242425, 0.8334999441460798),
        ]
    )
    torch.testing.assert_close(iv_ratio(v - 1, x), expected, rtol=2e-15, atol=0)


# Near a zero of log K, of log I; the last but one of each is the worst of Boost's tables without where_terms_cancel.
NEAR_ZERO = [
    *((18.98, 11.86), (66.7, 42.9), (98.6, 63.8), (306.91, 202.24)),
    *((18.25, 13.55), (64.5, 45.1), (194.97, 131.24), (301.35, 201.86)),
]


@pytest.fixture(scope="module")
def truth_near_zero():
    """log K and log I; K from I_v and I_{-v}."""
    found = []
    for v, x in NEAR_ZERO:
        with mpmath.workdps(50 + round(0.9 * x)):
            i, other = (mpmath.besseli(order, mpmath.mpf(x)) for order in (mpmath.mpf(v), -mpmath.mpf(v)))
            found.append((mpmath.log(mpmath.pi / 2 * (other - i) / mpmath.sinpi(mpmath.mpf(v))), mpmath.log(i)))
    return list(zip(*found, strict=True))


@pytest.mark.parametrize(("function", "which"), [(log_kv, 0), (log_iv, 1)])
def test_near_a_zero_of_the_logarithm_large_terms_do_not_leave_their_rounding(
    monkeypatch, truth_near_zero, function, which
):
    """Of 4,000 random pairs with v from 0.3 to 400 within 2 % of a zero, the worst are 2.3e-15 (K) and 7.2e-15 (I)."""
    v, x = tensors(NEAR_ZERO)
    assert largest_error(function(v, x), truth_near_zero[which]) < 8e-15
    monkeypatch.setattr(ranges, "CANCELLED", 0.0)
    assert largest_error(function(v, x), truth_near_zero[which]) > 1e-14  # the control


def test_the_tables_of_boost_that_scipy_carries():
    """All pairs with a value above underflow, orders up to 100, negative ones too."""
    file = Path(special.__file__).parent / "tests/data/boost.npz"
    if not file.is_file():
        pytest.skip("this SciPy comes without its test data")
    with np.load(file) as tables:
        for kind, function, least in (
            ("i", log_iv, 180),
            ("i_int", log_iv, 470),
            ("k", log_kv, 120),
            ("k_int", log_kv, 260),
        ):
            table = torch.from_numpy(tables[f"bessel_{kind}_data_ipp-bessel_{kind}_data"])
            v, x, value = table[(table[:, 1] >= 0) & (table[:, 2] > 1e-300) & table[:, 2].isfinite()].T
            assert len(v) > least
            off = (function(v, x) - value.log()).abs() / value.log().abs().clamp(min=1)
            assert (off <= 1e-14).all()


@pytest.mark.parametrize(
    ("function", "v", "x", "expected"),
    [
        *(
            (log_iv, 0, 0, 0),
            (log_iv, 2.5, 0, -INF),
            (log_iv, 1, INF, INF),
            (log_iv, INF, 1, -INF),
            (log_iv, 0, NAN, NAN),
        ),
        *((log_iv, 1, -2, NAN), (log_iv, 0.5, -2, NAN), (log_iv, 2, -2, math.log(0.6889484476987382))),
        *((log_iv, -2, 2, math.log(0.6889484476987382)), (log_iv, -0.5, 0, INF), (log_iv, -1.5, 1e-3, NAN)),
        *((log_ive, 1, INF, -INF), (log_kv, 1, 0, INF), (log_kv, 1, INF, -INF), (log_kv, INF, 1, INF)),
        *((log_kv, -0.5, 1.0, math.log(math.sqrt(math.pi / 2) / math.e)), (log_kv, 1, -1, NAN), (log_kve, 3, 0, INF)),
        *(
            (iv_ratio, 2, 0, 0),
            (iv_ratio, 2, INF, 1),
            (iv_ratio, -1, 1, NAN),
            (kv_ratio, 2, 0, INF),
            (kv_ratio, 2, INF, 1),
        ),
    ],
)
def test_edges(function, v, x, expected):
    found = float(function(v, x))
    assert found == pytest.approx(expected, rel=1e-14, nan_ok=True)


def test_negative_orders_are_reflected():
    v, x = torch.tensor([-0.5, -2.3, -2.7, -80.49], dtype=torch.float64), torch.tensor([2.0, 0.9, 3.0, 24.75]).double()
    expected = [mpmath.log(mpmath.besseli(*pair)) for pair in zip(v.tolist(), x.tolist(), strict=True)]
    assert all(mpmath.im(value) == 0 for value in expected)
    assert largest_error(log_iv(v, x), expected) < 1e-13
    assert gradcheck(log_iv, (v[:3].clone().requires_grad_(), x[:3].clone().requires_grad_()))


@pytest.mark.parametrize("function", [log_iv, log_ive, log_kv, log_kve, iv_ratio, iv_ratio_gap, kv_ratio])
def test_derivatives_in_order_and_argument(function):
    v, x = tensors([(0.3, 0.4), (2.4, 1.9), (8.2, 12.0), (14.0, 3.0), (70.0, 10.0)])
    given = v.clone().requires_grad_(), x.clone().requires_grad_()
    assert gradcheck(function, given, fast_mode=True)
    assert gradgradcheck(function, given, fast_mode=True, atol=1e-4)


def test_shapes_broadcast_and_may_be_empty():
    found = log_iv(torch.arange(3.0)[:, None], torch.tensor([1.0, 20.0, 300.0, 1e5]))
    assert found.shape == (3, 4)
    assert found[2, 1] == log_iv(torch.tensor(2.0), torch.tensor(20.0))
    assert log_kv(torch.empty(0), 1.0).shape == (0,)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_random_orders_and_arguments_are_those_of_mpmath(seed):
    """400 pairs, v in [0.1, 2e4] and x in [0.01, 3e3], evenly in the logarithm. The largest errors of log I as a share
    of max(1, |log|) were 1.2e-15, 1.4e-15 and 1.3e-15 for seeds 0-2."""
    u = torch.rand(2, 400, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    v, x = 0.1 * 2e5 ** u[0], 0.01 * 3e5 ** u[1]
    with mpmath.workdps(50):
        expected = [mpmath.log(mpmath.besseli(*pair)) for pair in zip(v.tolist(), x.tolist(), strict=True)]
    found = log_iv(v, x)
    assert largest_error(found, expected) < 5e-15
    # K by the Wronskian.
    product = found + log_kv(v, x) + (kv_ratio(v, x) + iv_ratio(v, x)).log() + x.log()
    assert (product.abs() <= 2e-14 * found.abs().clamp(min=1)).all()
