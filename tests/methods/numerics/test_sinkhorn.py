"""Sinkhorn's fixed point: marginals, strong duality, POT, and the limits of η."""

import itertools

import pytest
import torch
from scipy.optimize import linprog

from fisherexp.data.transport import point_clouds, random_assignment
from fisherexp.methods.numerics.sinkhorn import best_columns, best_rows, log_sum_exp, sinkhorn_sweep
from fisherexp.methods.numerics.transport_solver import zero_potentials
from fisherexp.problems.entropic_transport import dual_gradient, dual_value, duality_gap, plan, primal_value


def swept(problem, sweeps, state=None):
    state = zero_potentials(problem) if state is None else state
    for _ in range(sweeps):
        state = sinkhorn_sweep(state, problem)
    return state


PROBLEMS = [point_clouds(12, 7, eta=20.0), random_assignment(10, eta=30.0)]


@pytest.mark.parametrize("problem", PROBLEMS, ids=["clouds", "assignment"])
def test_each_half_fits_its_own_side(problem):
    x = best_rows(torch.zeros_like(problem.b), problem)
    rows, columns = dual_gradient(plan(x, torch.zeros_like(problem.b), problem), problem)
    assert rows.abs().max() < 1e-14
    assert columns.abs().max() > 1e-3
    rows, columns = dual_gradient(plan(x, best_columns(x, problem), problem), problem)
    assert columns.abs().max() < 1e-14
    assert rows.abs().max() > 1e-3


@pytest.mark.parametrize("problem", PROBLEMS, ids=["clouds", "assignment"])
def test_every_sweep_ascends_up_to_strong_duality(problem):
    state, values = zero_potentials(problem), []
    for _ in range(400):
        state = sinkhorn_sweep(state, problem)
        values.append(dual_value(state.x, state.y, problem).item())
    assert all(later >= earlier - 1e-14 for earlier, later in itertools.pairwise(values))
    assert values[-1] == pytest.approx(primal_value(plan(state.x, state.y, problem), problem).item(), abs=1e-13)
    assert abs(duality_gap(state.x, state.y, problem)) < 1e-13
    assert state.sweeps == 400


@pytest.mark.parametrize("problem", PROBLEMS, ids=["clouds", "assignment"])
def test_plan_is_that_of_pot(problem):
    ot = pytest.importorskip("ot")
    theirs = ot.sinkhorn(
        problem.a, problem.b, problem.cost, reg=1 / problem.eta, method="sinkhorn_log", stopThr=1e-14, numItermax=1000
    )
    state = swept(problem, 1000)
    torch.testing.assert_close(plan(state.x, state.y, problem), theirs, rtol=0, atol=1e-12)


def test_small_eta_gives_the_product():
    problem = point_clouds(12, 7, eta=1e-7)
    state = swept(problem, 2)
    product = torch.outer(problem.a, problem.b)
    torch.testing.assert_close(plan(state.x, state.y, problem), product, rtol=1e-5, atol=0)
    sharp = problem._replace(eta=20.0)
    state = swept(sharp, 50)
    assert (plan(state.x, state.y, sharp) / product - 1).abs().max() > 0.1  # control


def test_potentials_of_one_eta_are_a_start_for_the_next():
    sharp = point_clouds(12, 7, eta=200.0)
    state = zero_potentials(sharp)
    for eta in (12.5, 25.0, 50.0, 100.0):
        state = swept(sharp._replace(eta=eta), 20, state)
    cold, scaled = (swept(sharp, 1, start) for start in (zero_potentials(sharp), state))
    assert duality_gap(scaled.x, scaled.y, sharp) < duality_gap(cold.x, cold.y, sharp) / 2


def test_a_start_at_the_exact_potentials_ends_in_the_same_plan():
    """Points on a line, as in POT's test of its warm start: from the dual of the linear program, and from zero."""
    x, y = torch.arange(10.0, dtype=torch.float64), torch.arange(20.0, dtype=torch.float64)
    sides = torch.full((10,), 0.1, dtype=torch.float64), torch.full((20,), 0.05, dtype=torch.float64)
    problem = point_clouds(10, 20, eta=1.0)._replace(a=sides[0], b=sides[1], cost=(x[:, None] - y).square())
    sums = torch.cat([torch.kron(torch.eye(10), torch.ones(1, 20)), torch.kron(torch.ones(1, 10), torch.eye(20))])
    exact = linprog(problem.cost.flatten().numpy(), A_eq=sums.numpy(), b_eq=torch.cat(sides).numpy())
    dual = torch.from_numpy(exact.eqlin.marginals)
    warm = zero_potentials(problem)._replace(x=dual[:10].clone(), y=dual[10:].clone())
    plans = []
    for start in (zero_potentials(problem), warm):
        state = swept(problem, 1000, start)
        plans.append(plan(state.x, state.y, problem))
        torch.testing.assert_close(plans[-1].sum(1), problem.a, rtol=0, atol=1e-9)
        torch.testing.assert_close(plans[-1].sum(0), problem.b, rtol=0, atol=1e-9)
    torch.testing.assert_close(*plans, rtol=0, atol=1e-8)
    assert float((plans[0] * problem.cost).sum()) > exact.fun + 1e-3  # entropy has its price
    early = [plan(*swept(problem, 1, start)[:2], problem) for start in (zero_potentials(problem), warm)]
    assert float((early[0] - early[1]).abs().max()) > 1e-3  # the control


def test_large_eta_stays_finite_in_single_precision():
    problem = random_assignment(20, eta=1e4, dtype=torch.float32)
    state = swept(problem, 20)
    assert state.x.isfinite().all()
    assert plan(state.x, state.y, problem).sum().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [0, 1])
def test_log_sum_exp_is_that_of_torch(dtype, dim):
    exponents = torch.rand(30, 20, generator=torch.Generator().manual_seed(0), dtype=dtype) * -3000 - 2000
    torch.testing.assert_close(
        log_sum_exp(exponents, dim),
        torch.logsumexp(exponents, dim),
        rtol=0,
        atol=1e-3 if dtype == torch.float32 else 1e-12,
    )
