"""Logarithms of modified Bessel functions of real order, far beyond where the functions themselves overflow.

Plesner, Sørensen, Hauberg: Accurate Computation of the Logarithm of Modified Bessel Functions on GPUs, ICS 2024, arXiv
2409.08729: for each pair (v, x) the cheapest of several expansions. Theirs are chosen by a table of ranges for a small
relative error of log I and log K (read at second hand; their code is not public). Ours are exact to rounding also of
e^-x I and e^x K, whose logarithms are small: Debye's expansion in s = √(v² + x²) with terms by the size of the first
left out (ranges.py), which contains that for large arguments; below, the power series, and for K a recurrence instead
of Rothwell's integral, which is not exact below v = 0.05 (low_order.py). The ratios I_{v+1} / I_v are no differences of
logarithms.

Orders and arguments are tensors or numbers that broadcast; results have their common type. The work is done in float64,
so float32 results are rounded once. Functions are differentiable in x and v, as often as one likes. Error of a
logarithm: at most 1e-14 max(1, |log|); where log I or log K is small because large terms cancel, these are added up in
twice the digits (double_double.py).
"""

import math
from typing import Any

import torch
from torch import Tensor

from fisherexp.special import debye, ranges
from fisherexp.special.ranges import Formula


class _Differentiable(torch.autograd.Function):
    """formula(v, x) with `slope(v, x)` as its derivative in x; that in v goes through the formula itself."""

    @staticmethod
    def forward(ctx: Any, formula: Formula, slope: Formula, v: Tensor, x: Tensor) -> Tensor:
        ctx.formula, ctx.slope = formula, slope
        ctx.save_for_backward(v, x)
        return formula(v, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor | None, Tensor | None]:
        v, x = ctx.saved_tensors
        of_v = of_x = None
        if ctx.needs_input_grad[2]:
            again = torch.is_grad_enabled()
            with torch.enable_grad():
                order = v.view_as(v) if again else v.detach().requires_grad_()
                total = ctx.formula(order, x).sum()
                (of_v,) = torch.autograd.grad(total, order, create_graph=again)
            of_v = gradient * of_v
        if ctx.needs_input_grad[3]:
            of_x = gradient * ctx.slope(v, x)
        return None, None, of_v, of_x


def _over(v: Tensor, x: Tensor) -> Tensor:
    return torch.where(v == 0, 0.0, v / x)


def _i(v: Tensor, x: Tensor) -> Tensor:
    return _Differentiable.apply(ranges.log_ive, lambda v, x: _over(v, x) + _i_ratio(v, x) - 1, v, x)


def _k(v: Tensor, x: Tensor) -> Tensor:
    return _Differentiable.apply(ranges.log_kve, lambda v, x: _over(v, x) - _k_ratio(v, x) + 1, v, x)


def _i_ratio(v: Tensor, x: Tensor) -> Tensor:
    def slope(v: Tensor, x: Tensor) -> Tensor:
        ratio = _i_ratio(v, x)
        return torch.where(x == 0, 0.5 / (v + 1), 1 - ratio.square() - (2 * v + 1) * ratio / x)

    return _Differentiable.apply(ranges.iv_ratio, slope, v, x)


def _i_ratio_gap(v: Tensor, x: Tensor) -> Tensor:
    def slope(v: Tensor, x: Tensor) -> Tensor:
        gap = _i_ratio_gap(v, x)
        return -torch.where(x == 0, 0.5 / (v + 1), gap * (2 - gap) - (2 * v + 1) * (1 - gap) / x)

    return _Differentiable.apply(ranges.iv_ratio_gap, slope, v, x)


def _k_ratio(v: Tensor, x: Tensor) -> Tensor:
    def slope(v: Tensor, x: Tensor) -> Tensor:
        ratio = _k_ratio(v, x)
        return ratio * (ratio - (2 * v + 1) / x) - 1

    return _Differentiable.apply(ranges.kv_ratio, slope, v, x)


def log_iv(v: Tensor | float, x: Tensor | float) -> Tensor:
    """log I_v(x). NaN where I_v(x) is negative or not real; -inf where it is zero."""
    return _of_real_order(v, x, scaled=False)


def log_ive(v: Tensor | float, x: Tensor | float) -> Tensor:
    """log(e^-|x| I_v(x)), exact for large x, too, where log I_v(x) - |x| would not be."""
    return _of_real_order(v, x, scaled=True)


def log_kv(v: Tensor | float, x: Tensor | float) -> Tensor:
    """log K_v(x). NaN for x < 0, inf at 0."""
    v, x, kind = _prepared(v, x)
    v = v.abs()
    value = _k(v, x) - x
    return (value + ranges.where_terms_cancel(v, x, value, debye.log_kv)).to(kind)


def log_kve(v: Tensor | float, x: Tensor | float) -> Tensor:
    """log(e^x K_v(x)). NaN for x < 0, inf at 0."""
    v, x, kind = _prepared(v, x)
    return _k(v.abs(), x).to(kind)


def iv_ratio(v: Tensor | float, x: Tensor | float) -> Tensor:
    """I_{v+1}(x) / I_v(x) for v ≥ 0, x ≥ 0, in [0, 1): relative error 1e-15. NaN elsewhere."""
    v, x, kind = _prepared(v, x)
    return _i_ratio(v, x).to(kind)


def iv_ratio_gap(v: Tensor | float, x: Tensor | float) -> Tensor:
    """1 - I_{v+1}(x) / I_v(x), relative error 1e-14 also for large x, where it is about (v + ½) / x."""
    v, x, kind = _prepared(v, x)
    return _i_ratio_gap(v, x).to(kind)


def kv_ratio(v: Tensor | float, x: Tensor | float) -> Tensor:
    """K_{v+1}(x) / K_v(x) for v ≥ 0, x ≥ 0: relative error 1e-15. NaN elsewhere."""
    v, x, kind = _prepared(v, x)
    return _k_ratio(v, x).to(kind)


def _prepared(v: Tensor | float, x: Tensor | float) -> tuple[Tensor, Tensor, torch.dtype]:
    given = [part for part in (v, x) if isinstance(part, Tensor)]
    kind = torch.result_type(*given) if len(given) == 2 else given[0].dtype if given else torch.float64
    kind = kind if kind.is_floating_point else torch.get_default_dtype()
    device = given[0].device if given else None
    v, x = (torch.as_tensor(part, dtype=torch.float64, device=device) for part in (v, x))
    return *torch.broadcast_tensors(v, x), kind


def _of_real_order(v: Tensor | float, x: Tensor | float, scaled: bool) -> Tensor:
    """I_{-v} = I_v + (2/π) sin(πv) K_v, and I_n(-x) = (-1)^n I_n(x) for whole n."""
    v, x, kind = _prepared(v, x)
    order, size = v.abs(), x.abs()
    log_i = _i(order, size)
    result = log_i
    if not scaled:
        result = torch.where((size == math.inf) & order.isfinite(), math.inf, log_i + size)
        result = result + ranges.where_terms_cancel(order, size, result, debye.log_iv)
    if (v >= 0).all() and (x >= 0).all():  # the usual case: nothing to reflect, all values real
        return result.to(kind)
    whole = order == order.round()
    reflected = (v < 0) & ~whole & (x >= 0)
    if reflected.any():
        inside = torch.where(reflected, order, 0.5)
        sine = torch.sin(torch.pi * (inside - 2 * (inside.detach() / 2).round()))
        at = torch.where(reflected & (size > 0), size, 1.0)
        log_k = _k(inside, at) - 2 * at + (2 / torch.pi * sine.abs()).log()
        own = _i(inside, at)
        # The branch not taken must not be NaN: its gradient would be, too.
        less = own + torch.log1p(-torch.where(sine < 0, log_k - own, -math.inf).exp())
        both = torch.where(sine > 0, torch.logaddexp(own, log_k), less)
        both = both if scaled else both + at
        at_zero = torch.where(sine > 0, math.inf, math.nan)
        result = torch.where(reflected, torch.where(size > 0, both, at_zero), result)
    real = (x >= 0) | (whole & (order % 2 == 0))
    return result.where(real | result.isnan(), math.nan).to(kind)
