"""Sinkhorn-Newton-Sparse: a few Sinkhorn sweeps, then Newton's method on the dual with a sparse Hessian.

Tang, Shavlovsky, Rahmanian, Tardini, Thekumparampil, Xiao, Ying: Accelerating Sinkhorn Algorithm with Sparse Newton
Iterations, ICLR 2024, arXiv 2401.12253. With the dual f and plan P of entropic_transport.py, a step solves

    η [diag(P 1), S; Sᵀ, diag(Pᵀ 1)] (Δx, Δy) = ∇f,    S: the largest entries of P, zero elsewhere

by conjugate gradients and follows (Δx, Δy) as far as a backtracking line search allows. The diagonals are those of the
whole P: the matrix then dominates its diagonal and is positive semidefinite, so that a step ascends however few
entries are kept; with too few of them it is slow, not wrong. Concentrated plans (large η) need about 3 max(n, m)
entries, spread ones many more: `dropped_mass` chooses by what is left out instead of by number.

The authors' code is not public. Where ours adds to the paper's description:
- The paper gives the sparsity as a share of the (n+m)² Hessian with its diagonals; `plan_entries` translates it.
- The matrix is singular along (1, -1), and nearly so for each well-matched pair. It is scaled by its diagonal, and
  `shift` is added.
- The line search compares gains, Σ P (exp u - 1 - u), instead of values of f, whose differences drown in rounding at
  the end.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from fisherexp.config.types import Count, NonNegative, Positive, Probability, Size
from fisherexp.data.transport import CloudInstance, TransportInstance
from fisherexp.methods.numerics.sinkhorn import sinkhorn_sweep
from fisherexp.methods.numerics.transport_solver import TransportSolver, TransportState
from fisherexp.problems.entropic_transport import error_of, plan_parts
from fisherexp.problems.transport import Transport

CG_ROUNDS = 10  # times n + m iterations at most: in exact arithmetic once is enough, with rounding it is not
ARMIJO = 1e-4  # share of the gain promised by the slope that a step must bring (Nocedal, Wright, §3.1)


class SparseHessian(NamedTuple):
    """-∇²f / η without what was dropped from P.

    row_mass: P 1 (n,), column_mass: Pᵀ 1 (m,). rows, columns: int64 (k,) places of the kept entries, values: (k,).
    """

    row_mass: Tensor
    column_mass: Tensor
    rows: Tensor
    columns: Tensor
    values: Tensor

    def matvec(self, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        """Its product with (dx (n,), dy (m,)): O(n + m + k)."""
        rows = (self.row_mass * dx).index_add(0, self.rows, self.values * dy[self.columns])
        columns = (self.column_mass * dy).index_add(0, self.columns, self.values * dx[self.rows])
        return rows, columns


class NewtonStep(NamedTuple):
    """What a step did, for logs. error: of the marginals before it. gain: rise of f, in units of cost.

    slope: derivative of f along the direction. step_size: share of the direction taken. kept: entries of P.
    cg_iterations: of the linear solver.
    """

    error: float
    gain: float
    slope: float
    step_size: float
    kept: int
    cg_iterations: int


def plan_entries(density: float, n: int, m: int) -> int:
    """How many entries of P leave the share `density` of the (n+m)² Hessian nonzero, its two diagonals included.

    The paper's 2/n (random assignment) and 15/n, for n = m, are 3n and 29n entries.
    """
    return max(0, min(n * m, round((density * (n + m) ** 2 - (n + m)) / 2)))


def sparse_hessian(transport: Tensor, keep: int | None = None, dropped_mass: float | None = None) -> SparseHessian:
    """The Hessian of a plan P (n, m), scaled by 1/η.

    keep: its `keep` largest entries. dropped_mass: all entries but the small ones that together hold at most this
    share of the mass (those below dropped_mass · Σ P / nm). Neither: all entries. Both: ValueError.
    """
    if keep is not None and dropped_mass is not None:
        raise ValueError(f"keep={keep} and dropped_mass={dropped_mass}: only one of them can be given")
    flat = transport.flatten()
    if keep is not None:
        places = flat.topk(min(keep, flat.numel()), sorted=False).indices.sort().values
    elif dropped_mass is not None:
        places = (flat >= dropped_mass * flat.sum() / flat.numel()).nonzero().squeeze(1)
    else:
        places = torch.arange(flat.numel(), device=flat.device)
    columns = transport.shape[1]
    return SparseHessian(transport.sum(1), transport.sum(0), places // columns, places % columns, flat[places])


def hessian_of_parts(
    parts: Callable[[], Iterable[tuple[slice, Tensor]]],
    problem: TransportInstance | CloudInstance,
    keep: int | None = None,
    dropped_mass: float | None = None,
) -> SparseHessian:
    """`sparse_hessian` of a plan that comes some rows at a time: parts() gives rows and P of these, again and again.

    Everything that outlives a part is made before: what is left between them would keep their memory in pieces.
    """
    n, m = len(problem.a), len(problem.b)
    if problem.whole:
        ((_, whole),) = parts()
        return sparse_hessian(whole, keep, dropped_mass)
    if dropped_mass is not None:
        floor = dropped_mass * sum(float(part.sum()) for _, part in parts()) / (n * m)
        keep = sum(int((part >= floor).sum()) for _, part in parts())
    keep = n * m if keep is None else min(keep, n * m)
    row_mass, column_mass = torch.empty_like(problem.a), torch.zeros_like(problem.b)
    values = problem.a.new_full((keep,), -1.0)
    places = torch.zeros_like(values, dtype=torch.int64)
    for rows, part in parts():
        row_mass[rows] = part.sum(1)
        column_mass += part.sum(0)
        found = part.flatten().topk(min(keep, part.numel()), sorted=False)
        largest = torch.cat([values, found.values]).topk(keep, sorted=False)
        values.copy_(largest.values)
        places.copy_(torch.cat([places, found.indices + rows.start * m])[largest.indices])
    order = places.argsort()
    places = places[order]
    return SparseHessian(row_mass, column_mass, places // m, places % m, values[order])


def conjugate_gradients(
    hessian: SparseHessian, right: tuple[Tensor, Tensor], tolerance: float, limit: int, shift: float
) -> tuple[Tensor, Tensor, int]:
    """(Δx, Δy, iterations) with hessian (Δx, Δy) ≈ right, starting from zero.

    Solved as D (D⁻¹ H D⁻¹ + shift) D with D² the diagonal. Stops when the scaled residual has fallen to `tolerance`
    times its first norm, or after `limit` iterations: any iterate is a direction of ascent.
    """
    n = len(hessian.row_mass)
    scale = torch.cat([hessian.row_mass, hessian.column_mass]).rsqrt()
    residual = scale * torch.cat(right)
    solution, direction = torch.zeros_like(residual), residual.clone()
    squared = residual @ residual
    enough = tolerance**2 * squared
    iterations = 0
    while squared > enough and iterations < limit:
        scaled = scale * direction
        product = scale * torch.cat(hessian.matvec(scaled[:n], scaled[n:])) + shift * direction
        length = squared / (direction @ product)
        solution = solution + length * direction
        residual = residual - length * product
        previous, squared = squared, residual @ residual
        direction = residual + squared / previous * direction
        iterations += 1
    solution = scale * solution
    return solution[:n], solution[n:], iterations


def dual_gain(transport: Tensor, slope: Tensor, dx: Tensor, dy: Tensor, eta: float) -> Tensor:
    """f(x + dx, y + dy) - f(x, y) from the plan P (n, m) at (x, y) and the slope ⟨∇f, (dx, dy)⟩.

    slope - (1/η) Σ P (exp u - 1 - u) with u = η (dx_i + dy_j): exact to rounding of the gain itself, not of f.
    -inf where a step overshoots so far that the plan overflows.
    """
    u = eta * (dx[:, None] + dy)
    gain = slope - (transport * (u.expm1() - u)).sum() / eta
    return gain if gain.isfinite() else gain.new_tensor(-math.inf)


def newton_step(
    state: TransportState,
    problem: TransportInstance | CloudInstance,
    keep: int | None = None,
    dropped_mass: float | None = None,
    cg_tolerance: float = 1e-4,
    shift: float = 1e-10,
    max_halvings: int = 30,
) -> tuple[TransportState, NewtonStep]:
    """One sparse Newton step; O(nm) besides the linear solver's O(n + m + kept) per iteration.

    keep, dropped_mass: see sparse_hessian. When the first step, halved `max_halvings` times, still does not ascend,
    the potentials stay as they are and the state's step_size is 0.
    """
    # A whole plan is made once and kept, parts are made anew for every look at them.
    whole = list(plan_parts(state.x, state.y, problem)) if problem.whole else None

    def parts() -> Iterable[tuple[slice, Tensor]]:
        return whole or plan_parts(state.x, state.y, problem)

    def gain_of(share: float) -> Tensor:
        gain = share * slope
        for rows, part in parts():
            gain += dual_gain(part, 0 * slope, share * dx[rows], share * dy, problem.eta)
        return gain

    hessian = hessian_of_parts(parts, problem, keep, dropped_mass)
    gradient = problem.a - hessian.row_mass, problem.b - hessian.column_mass
    size = len(problem.a) + len(problem.b)
    dx, dy, iterations = conjugate_gradients(hessian, gradient, cg_tolerance, CG_ROUNDS * size, shift)
    dx, dy = dx / problem.eta, dy / problem.eta
    slope = gradient[0] @ dx + gradient[1] @ dy
    # No step multiplies an entry of P by more than a float can hold.
    furthest = problem.eta * float(max(dx.max() + dy.max(), -(dx.min() + dy.min())))
    step_size = min(1.0, math.log(torch.finfo(dx.dtype).max) / furthest) if furthest > 0 else 1.0
    gain = gain_of(step_size)
    for _ in range(max_halvings):
        if gain >= ARMIJO * step_size * slope:
            break
        step_size /= 2
        gain = gain_of(step_size)
    else:
        step_size, gain = 0.0, torch.zeros_like(slope)
    error = float(gradient[0].abs().sum() + gradient[1].abs().sum())
    report = NewtonStep(error, float(gain), float(slope), step_size, len(hessian.values), iterations)
    moved = state._replace(newton_steps=state.newton_steps + 1, step_size=step_size)
    return (moved._replace(x=state.x + step_size * dx, y=state.y + step_size * dy) if step_size else moved), report


def sinkhorn_newton_step(
    state: TransportState, problem: TransportInstance | CloudInstance, warmup: int = 20, **newton: float | int | None
) -> TransportState:
    """A Sinkhorn sweep while there were fewer than `warmup` of them, a Newton step with options `newton` afterwards.

    The paper's settings at n = 500, η = 1200: warmup 20, density 2/n (random assignment, squared distances); warmup
    700, density 15/n (absolute distances).
    """
    if state.sweeps < warmup:
        return sinkhorn_sweep(state, problem)
    return newton_step(state, problem, **newton)[0]


def finished(state: TransportState, problem: TransportInstance | CloudInstance, tolerance: float) -> bool:
    """Whether the marginals' L1 error is at most `tolerance`, or no further Newton step can ascend."""
    return state.step_size == 0 or bool(error_of(state.x, state.y, problem) <= tolerance)


class SinkhornNewton(TransportSolver):
    """A step is a sweep, after `warmup` of them a Newton step.

    kept_per_point: entries of P kept in the Hessian, in units of max(n, m). dropped_mass: keep instead whatever leaves
    at most this share of the mass out. With neither all are kept; both at once are refused.
    cg_tolerance: see conjugate_gradients. tolerance, max_iterations: when to stop.
    """

    paper = "Tang et al., ICLR 2024, arXiv 2401.12253"
    # Sweeps and Newton steps to machine precision, η = 1200 (20 + 9 of random costs); read at second hand.
    published = {
        "random_assignment": {"iterations": (29,)},
        "image_pair": {"iterations": (53,)},
        "image_pair_absolute": {"iterations": (777,)},
    }

    def __init__(
        self,
        warmup: Size = 20,
        kept_per_point: NonNegative | None = 3.0,
        dropped_mass: Probability | None = None,
        cg_tolerance: Positive = 1e-4,
        tolerance: Positive = 1e-10,
        max_iterations: Count = 1000,
    ) -> None:
        super().__init__(tolerance, max_iterations)
        if kept_per_point is not None and dropped_mass is not None:
            raise ValueError(f"method.dropped_mass={dropped_mass} needs method.kept_per_point=null")
        self.warmup, self.kept_per_point, self.dropped_mass = warmup, kept_per_point, dropped_mass
        self.cg_tolerance = cg_tolerance

    def begin(self, problem: Transport, seed: int) -> None:
        if self.kept_per_point is None and self.dropped_mass is None and not problem.transport.whole:
            reason = "all entries of a plan that comes in parts would be kept"
            raise ValueError(f"method.kept_per_point=null: {reason}; method.kept_per_point=3.0")
        super().begin(problem, seed)

    @property
    def remedy(self) -> str:
        if self.stopped == "no ascent":  # where rounding is all that is left, or the start is too far for Newton steps
            return f"a larger method.tolerance, or a start by more sweeps: method.warmup={10 * max(self.warmup, 10)}"
        by_mass = ", or, of a plan that is spread out, method.kept_per_point=null method.dropped_mass=0.001"
        return f"method.max_iterations={10 * self.max_iterations}" + by_mass * (self.kept_per_point is not None)

    def advance(self) -> dict[str, float]:
        if self.state.sweeps < self.warmup:
            self.state = sinkhorn_sweep(self.state, self.instance)
            return {}
        points = max(len(self.instance.a), len(self.instance.b))
        keep = None if self.kept_per_point is None else round(self.kept_per_point * points)
        self.state, report = newton_step(self.state, self.instance, keep, self.dropped_mass, self.cg_tolerance)
        return {"kept": report.kept, "cg_iterations": report.cg_iterations, "step_size": report.step_size}
