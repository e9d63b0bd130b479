"""Optimal transport with entropy and its concave dual: what every solver of it shares.

    f(x, y) = -(1/η) Σ_ij P_ij + aᵀx + bᵀy,    P_ij = exp(η (x_i + y_j - C_ij) - 1)
    ∇f = (a - P 1, b - Pᵀ 1),    -∇²f = η [diag(P 1), P; Pᵀ, diag(Pᵀ 1)]

The maximizer's P is the optimal plan. f does not change when x grows and y shrinks by one constant. Cuturi (2013); in
this form Tang et al. (ICLR 2024, arXiv 2401.12253). All functions work in the instance's type and on its device.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fisherexp.data.transport import CloudInstance, StoredInstance, TransportInstance

Instance = TransportInstance | StoredInstance | CloudInstance


def log_plan(x: Tensor, y: Tensor, problem: TransportInstance) -> Tensor:
    """log P (n, m) of potentials x (n,), y (m,)."""
    return problem.eta * (x[:, None] + y - problem.cost) - 1


def plan(x: Tensor, y: Tensor, problem: TransportInstance) -> Tensor:
    """P (n, m); its marginals are a and b at the maximum only."""
    return exp_above_underflow(log_plan(x, y, problem))


def exp_above_underflow(exponents: Tensor) -> Tensor:
    """exp, but never less than the smallest normal number, which changes no sum.

    Concentrated plans have most exponents below that, and there exp is some twenty times slower.
    """
    return exponents.clamp(min=math.log(torch.finfo(exponents.dtype).tiny)).exp()


def dual_value(x: Tensor, y: Tensor, problem: TransportInstance) -> Tensor:
    """f(x, y), in units of cost: a lower bound of every feasible plan's `primal_value`."""
    return problem.a @ x + problem.b @ y - plan(x, y, problem).sum() / problem.eta


def dual_gradient(transport: Tensor, problem: TransportInstance) -> tuple[Tensor, Tensor]:
    """∇f as (n,) and (m,), from the plan: by how much its rows and columns fall short."""
    return problem.a - transport.sum(1), problem.b - transport.sum(0)


def marginal_error(transport: Tensor, problem: TransportInstance) -> Tensor:
    """‖P 1 - a‖₁ + ‖Pᵀ 1 - b‖₁, in units of mass: the L1 norm of the dual gradient."""
    rows, columns = dual_gradient(transport, problem)
    return rows.abs().sum() + columns.abs().sum()


def primal_value(transport: Tensor, problem: TransportInstance) -> Tensor:
    """⟨C, P⟩ + (1/η) Σ P log P, in units of cost; 0 log 0 is 0."""
    return (problem.cost * transport).sum() + torch.special.xlogy(transport, transport).sum() / problem.eta


def rounded_plan(transport: Tensor, problem: TransportInstance) -> Tensor:
    """A plan with marginals a and b close to a given one (n, m) ≥ 0.

    Rows and columns that are too heavy are scaled down, what is missing is spread as a product (Altschuler, Weed,
    Rigollet 2017, algorithm 2). It moves at most twice the mass by which the marginals were wrong.
    """
    transport = transport * (problem.a / transport.sum(1)).clamp(max=1)[:, None]
    transport = transport * (problem.b / transport.sum(0)).clamp(max=1)
    rows, columns = (part.clamp(min=0) for part in dual_gradient(transport, problem))
    missing = rows.sum()
    return transport if missing == 0 else transport + torch.outer(rows, columns) / missing


def duality_gap(x: Tensor, y: Tensor, problem: TransportInstance) -> Tensor:
    """Objective of the rounded plan minus f(x, y) ≥ 0, in units of cost: a bound on how far either is from optimal."""
    return primal_value(rounded_plan(plan(x, y, problem), problem), problem) - dual_value(x, y, problem)


def plan_parts(x: Tensor, y: Tensor, problem: Instance) -> Iterator[tuple[slice, Tensor]]:
    """The plan some rows at a time: rows, and P of these."""
    for rows, part in problem.parts():
        yield rows, plan(x[rows], y, part)


def masses(x: Tensor, y: Tensor, problem: Instance) -> tuple[Tensor, Tensor]:
    """P 1 (n,) and Pᵀ 1 (m,), by parts."""
    # Sums are made in place: between the parts, which come and go, a list of them would leave the memory in pieces.
    rows, columns = torch.empty_like(problem.a), torch.zeros_like(problem.b)
    for part, transport in plan_parts(x, y, problem):
        rows[part] = transport.sum(1)
        columns += transport.sum(0)
    return rows, columns


def error_of(x: Tensor, y: Tensor, problem: Instance) -> Tensor:
    """The `marginal_error` of the plan, by parts."""
    rows, columns = masses(x, y, problem)
    return (problem.a - rows).abs().sum() + (problem.b - columns).abs().sum()


def figures_of(x: Tensor, y: Tensor, problem: Instance) -> dict[str, Tensor]:
    """Of potentials, by parts: marginal_error of the plan; transport_cost, entropy (in nats), objective of the plan
    rounded as in `rounded_plan`; and gap, its `duality_gap`. The plan is made four times and never kept."""
    rows, columns = masses(x, y, problem)
    row_scale = (problem.a / rows).clamp(max=1)
    scaled, reached = torch.zeros_like(problem.b), torch.empty_like(problem.a)
    for part, transport in plan_parts(x, y, problem):
        scaled += row_scale[part] @ transport
    column_scale = (problem.b / scaled).clamp(max=1)
    for part, transport in plan_parts(x, y, problem):
        reached[part] = row_scale[part] * (transport @ column_scale)
    short = (problem.a - reached).clamp(min=0), (problem.b - scaled * column_scale).clamp(min=0)
    missing = short[0].sum()
    cost = entropy = torch.zeros_like(missing)
    for part, inside in problem.parts():
        rounded = row_scale[part, None] * plan(x[part], y, inside) * column_scale
        if missing > 0:
            rounded = rounded + torch.outer(short[0][part], short[1]) / missing
        cost = cost + (inside.cost * rounded).sum()
        entropy = entropy - torch.special.xlogy(rounded, rounded).sum()
    objective = cost - entropy / problem.eta
    dual = problem.a @ x + problem.b @ y - rows.sum() / problem.eta
    error = (problem.a - rows).abs().sum() + (problem.b - columns).abs().sum()
    named = {"transport_cost": cost, "entropy": entropy, "objective": objective, "gap": objective - dual}
    return {"marginal_error": error, **named}
