"""Which expansion is exact to rounding for which orders and arguments, and evaluating it there: see log_bessel.py.

All functions take float64 tensors of one shape with v ≥ 0 and x ≥ 0, infinite ones too, and are NaN elsewhere. Autograd
goes through them.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fisherexp.special import debye, low_order

BLOCK = 16384  # pairs at a time, which a processor's cache holds
# √(v² + x²) from which on so many terms are exact: the first left out is p_{n+1}(0) / s^(n+1) < 2e-16.
ENOUGH = ((1500.0, 4), (206.0, 6), (64.0, 9), (32.0, 13))
LOWEST_ORDER = 20.0  # from which on 13 terms are for every x; at 13.1 they leave 4e-14 out
LEAST_OF_RATIO, LOWEST_ORDER_OF_RATIO = 45.0, 25.0  # the same of the derivative's series
# Share of √(v² + x²) below which a logarithm has lost digits, up to a size at which none would be right anyway.
CANCELLED, LARGEST = 1 / 16, 1e16

Formula = Callable[[Tensor, Tensor], Tensor]


def _by_blocks(
    formula: Formula, v: Tensor, x: Tensor, at_zero: float | Tensor, at_infinity: float, of_infinite: float
) -> Tensor:
    """formula, which gets flat blocks of finite v ≥ 0 and x > 0. at_zero, at_infinity: the limits in x; of_infinite:
    that in v."""
    inside = (v >= 0) & (x > 0) & v.isfinite() & x.isfinite()
    if inside.all():
        return _joined(formula, v.reshape(-1), x.reshape(-1)).reshape(v.shape)
    result = torch.full_like(x, math.nan)
    for where, limit in (
        ((v >= 0) & (x == 0), at_zero),
        (v.isfinite() & (v >= 0) & (x == math.inf), at_infinity),
        ((v == math.inf) & (x > 0) & x.isfinite(), of_infinite),
    ):
        result = torch.where(where, limit, result)
    return result.masked_scatter(inside, _joined(formula, v[inside], x[inside]))


def _joined(formula: Formula, v: Tensor, x: Tensor) -> Tensor:
    blocks = zip(v.split(BLOCK), x.split(BLOCK), strict=True)
    return torch.cat([formula(*block) for block in blocks]) if len(x) else torch.empty_like(x)


def _first_match(v: Tensor, x: Tensor, choices: list[tuple[Tensor, Formula]], otherwise: Formula) -> Tensor:
    """The formula of the first range that holds each pair."""
    result, left = torch.zeros_like(x), torch.ones_like(x, dtype=torch.bool)
    for where, formula in [*choices, (torch.ones_like(left), otherwise)]:
        chosen = where & left
        if chosen.all():
            return formula(v, x)
        places = chosen.nonzero().squeeze(1)
        if len(places):
            result = result.index_copy(0, places, formula(v[places], x[places]))
            left = left & ~chosen
    return result


def _log_e(v: Tensor, x: Tensor, large: Callable[[Tensor, Tensor, int], Tensor], low: Formula) -> Tensor:
    size = torch.hypot(v, x)
    ranges = [(size > least, lambda v, x, n=n: large(v, x, n)) for least, n in ENOUGH]
    return _first_match(v, x, [*ranges, (v > LOWEST_ORDER, lambda v, x: large(v, x, 13))], low)


def log_ive(v: Tensor, x: Tensor) -> Tensor:
    """log(e^-x I_v(x))."""

    def formula(v: Tensor, x: Tensor) -> Tensor:
        return _log_e(v, x, debye.log_ive, lambda v, x: low_order.log_iv(v, x) - x)

    return _by_blocks(formula, v, x, torch.where(v == 0, 0.0, -math.inf), -math.inf, -math.inf)


def log_kve(v: Tensor, x: Tensor) -> Tensor:
    """log(e^x K_v(x))."""

    def formula(v: Tensor, x: Tensor) -> Tensor:
        return _log_e(v, x, debye.log_kve, lambda v, x: low_order.kv(v, x)[0])

    return _by_blocks(formula, v, x, math.inf, -math.inf, math.inf)


@torch.no_grad()
def where_terms_cancel(v: Tensor, x: Tensor, value: Tensor, formula: Formula) -> Tensor:
    """By how much log I or log K, `value`, is off where it is small beside the terms it is the sum of, which Debye's
    `formula` adds up in twice the digits; elsewhere zero."""
    v, x, known = v.reshape(-1), x.reshape(-1), value.reshape(-1)
    near = (known.abs() < CANCELLED * (v + x)).nonzero().squeeze(1)  # v + x ≥ √(v² + x²): few are looked at closer
    size = torch.hypot(v[near], x[near])
    expands = (size > ENOUGH[-1][0]) | (v[near] > LOWEST_ORDER)
    near = near[expands & (size < LARGEST) & (known[near].abs() < CANCELLED * size)]
    off = formula(v[near], x[near]) - known[near]
    return torch.zeros_like(known).index_copy(0, near, off).reshape(value.shape)


def iv_ratio(v: Tensor, x: Tensor) -> Tensor:
    """I_{v+1}(x) / I_v(x)."""

    def formula(v: Tensor, x: Tensor) -> Tensor:
        return _first_match(v, x, [(_ratio_expands(v, x), debye.iv_ratio)], _ratio_from_above)

    return _by_blocks(formula, v, x, 0.0, 1.0, 0.0)


def iv_ratio_gap(v: Tensor, x: Tensor) -> Tensor:
    """1 - I_{v+1}(x) / I_v(x)."""

    def formula(v: Tensor, x: Tensor) -> Tensor:
        ranges = [(_ratio_expands(v, x), debye.iv_ratio_gap)]
        return _first_match(v, x, ranges, lambda v, x: 1 - _ratio_from_above(v, x))

    return _by_blocks(formula, v, x, 1.0, 0.0, 1.0)


def _ratio_from_above(v: Tensor, x: Tensor) -> Tensor:
    """r_w = 1 / (2 (w+1) / x + r_{w+1}), downwards from an order that has an expansion."""
    steps = math.ceil(LOWEST_ORDER_OF_RATIO - float(v.detach().min()))
    ratio = debye.iv_ratio(v + steps, x)
    for step in range(steps, 0, -1):
        ratio = x / (2 * (v + step) + x * ratio)
    return ratio


def kv_ratio(v: Tensor, x: Tensor) -> Tensor:
    """K_{v+1}(x) / K_v(x)."""

    def formula(v: Tensor, x: Tensor) -> Tensor:
        return _first_match(v, x, [(_ratio_expands(v, x), debye.kv_ratio)], lambda v, x: low_order.kv(v, x)[1])

    return _by_blocks(formula, v, x, math.inf, 1.0, math.inf)


def _ratio_expands(v: Tensor, x: Tensor) -> Tensor:
    return (v > LOWEST_ORDER_OF_RATIO) | (torch.hypot(v, x) > LEAST_OF_RATIO)
