"""Sparse Newton steps: the linear system, the line search, the fixed point, and saving in the middle."""

import warnings

import numpy as np
import pytest
import torch

from fisherexp.data.transport import TransportInstance, image_pair, point_clouds, random_assignment
from fisherexp.methods.numerics.sinkhorn import sinkhorn_sweep
from fisherexp.methods.numerics.sinkhorn_newton import (
    conjugate_gradients,
    dual_gain,
    finished,
    newton_step,
    plan_entries,
    sinkhorn_newton_step,
    sparse_hessian,
)
from fisherexp.methods.numerics.transport_solver import TransportState, zero_potentials
from fisherexp.problems.entropic_transport import dual_gradient, dual_value, duality_gap, marginal_error, plan


def warm(problem, sweeps=20) -> TransportState:
    state = zero_potentials(problem)
    for _ in range(sweeps):
        state = sinkhorn_sweep(state, problem)
    return state


def solved(problem, warmup=20, tolerance=1e-10, limit=60, **newton) -> TransportState:
    state = warm(problem, warmup)
    while not finished(state, problem, tolerance) and state.newton_steps < limit:
        state, _ = newton_step(state, problem, **newton)
    return state


@pytest.mark.parametrize(("density", "n", "entries"), [(2 / 500, 500, 1500), (15 / 500, 500, 14500), (1.0, 10, 100)])
def test_density_counts_the_diagonals_of_the_hessian(density, n, entries):
    assert plan_entries(density, n, n) == entries


def dense(hessian, n, m):
    units = torch.eye(n + m, dtype=torch.float64)
    return torch.stack([torch.cat(hessian.matvec(unit[:n], unit[n:])) for unit in units])


@pytest.mark.parametrize(
    ("options", "entries"), [({"keep": 5}, 5), ({"keep": 10**6}, 35), ({}, 35), ({"dropped_mass": 0.0}, 35)]
)
def test_the_largest_entries_stay_and_the_diagonals_are_whole(options, entries):
    problem = point_clouds(7, 5, eta=30.0)
    transport = plan(*warm(problem, 3)[:2], problem)
    hessian = sparse_hessian(transport, **options)
    kept = torch.where(transport >= transport.flatten().sort(descending=True).values[entries - 1], transport, 0)
    expected = torch.cat(
        [torch.cat([transport.sum(1).diag(), kept], 1), torch.cat([kept.T, transport.sum(0).diag()], 1)]
    )
    torch.testing.assert_close(dense(hessian, 7, 5), expected)
    assert torch.linalg.eigvalsh(expected).min() > -1e-15


@pytest.mark.parametrize("share", [1e-6, 1e-2, 0.2])
def test_dropped_mass_is_at_most_what_was_allowed(share):
    transport = plan(*warm(point_clouds(40, 30, eta=50.0))[:2], point_clouds(40, 30, eta=50.0))
    hessian = sparse_hessian(transport, dropped_mass=share)
    assert 0 < transport.sum() - hessian.values.sum() <= share * transport.sum()


def test_two_rules_of_sparsity_are_refused():
    with pytest.raises(ValueError, match=r"keep=3 and dropped_mass=0\.1"):
        sparse_hessian(torch.ones(2, 2), keep=3, dropped_mass=0.1)


def test_conjugate_gradients_solve_the_system_without_the_null_direction():
    problem = point_clouds(7, 5, eta=10.0)
    state = warm(problem, 1)
    transport = plan(state.x, state.y, problem)
    gradient, hessian = dual_gradient(transport, problem), sparse_hessian(transport)
    dx, dy, iterations = conjugate_gradients(hessian, gradient, tolerance=1e-13, limit=100, shift=0.0)
    expected = torch.linalg.pinv(dense(hessian, 7, 5), rtol=1e-12) @ torch.cat(gradient)
    null = torch.cat([torch.ones(7), -torch.ones(5)]).double()
    difference = torch.cat([dx, dy]) - expected
    difference = difference - null * (difference @ null) / 12  # equal up to a constant lent from side to side
    assert difference.abs().max() < 1e-12 * expected.abs().max()
    assert iterations <= 12


def test_gain_is_the_difference_of_values_and_resolves_what_that_cannot():
    problem = point_clouds(9, 6, eta=10.0)
    x, y = warm(problem, 2)[:2]
    transport = plan(x, y, problem)
    gradient = dual_gradient(transport, problem)
    draw = torch.Generator().manual_seed(0)
    dx, dy = (torch.randn(n, generator=draw, dtype=torch.float64) for n in (9, 6))
    for size in (1.0, 1e-2):
        step = (size * dx, size * dy)
        gain = dual_gain(transport, gradient[0] @ step[0] + gradient[1] @ step[1], *step, problem.eta)
        expected = dual_value(x + step[0], y + step[1], problem) - dual_value(x, y, problem)
        assert gain.item() == pytest.approx(expected.item(), rel=1e-11)
    tiny = (1e-9 * dx, 1e-9 * dy)  # a gain of second order near 1e-18, where values differ by rounding, 1e-16
    gain = dual_gain(transport, torch.zeros((), dtype=torch.float64), *tiny, problem.eta)
    curvature = (transport * (tiny[0][:, None] + tiny[1]).square()).sum() * problem.eta / 2
    assert gain.item() == pytest.approx(-curvature.item(), rel=1e-5)
    assert 0 < curvature < 1e-16
    assert dual_gain(transport, gradient[0] @ dx, 1e6 * dx, dy, problem.eta) == -float("inf")


@pytest.mark.parametrize("keep", [None, 10**6])
def test_all_entries_give_the_dense_newton_step(keep):
    problem = point_clouds(8, 6, eta=5.0)
    state = warm(problem, 3)
    transport = plan(state.x, state.y, problem)
    gradient = torch.cat(dual_gradient(transport, problem))
    step = torch.linalg.pinv(dense(sparse_hessian(transport), 8, 6), rtol=1e-12) @ gradient / problem.eta
    expected = plan(state.x + step[:8], state.y + step[8:], problem)
    moved, report = newton_step(state, problem, keep=keep, cg_tolerance=1e-13, shift=0.0)
    assert report.step_size == 1
    torch.testing.assert_close(plan(moved.x, moved.y, problem), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("keep", [0, 20, 60, 120, None])
def test_every_step_ascends_however_few_entries_are_kept(keep):
    problem = point_clouds(60, 40, eta=50.0)
    state = warm(problem, 2)
    for _ in range(8):
        before = state
        state, report = newton_step(state, problem, keep=keep)
        assert report.slope > 0
        assert report.gain > 0
        rise = dual_value(state.x, state.y, problem) - dual_value(before.x, before.y, problem)
        assert rise.item() == pytest.approx(report.gain, abs=1e-14)
        assert report.error == pytest.approx(marginal_error(plan(before.x, before.y, problem), problem).item())


def test_an_overshooting_step_is_shortened():
    problem = random_assignment(30, eta=300.0)
    start = zero_potentials(problem)  # far from the solution: some entries are exp(-300)
    state, report = newton_step(start, problem)
    assert 0 < report.step_size < 1
    assert report.gain > 0
    full = [(after - before) / report.step_size for after, before in ((state.x, start.x), (state.y, start.y))]
    assert dual_value(start.x + full[0], start.y + full[1], problem) < dual_value(start.x, start.y, problem)


def test_without_ascent_the_state_stays_and_says_so():
    problem = random_assignment(30, eta=300.0)
    state, report = newton_step(zero_potentials(problem), problem, max_halvings=0)
    assert report.step_size == state.step_size == 0
    assert torch.equal(state.x, torch.zeros(30, dtype=torch.float64))
    assert finished(state, problem, tolerance=1e-10)
    assert marginal_error(plan(state.x, state.y, problem), problem) > 1e-3


@pytest.mark.parametrize(
    "problem",
    [
        random_assignment(40, eta=100.0),
        point_clouds(25, 15, eta=40.0),
        image_pair(torch.eye(5), torch.eye(5).flip(0), eta=30.0),
        image_pair(torch.eye(5), torch.ones(5, 5).tril(), eta=30.0, distance="absolute"),
    ],
    ids=["assignment", "clouds", "squared", "absolute"],
)
def test_fixed_point_is_that_of_sinkhorn_and_of_pot(problem):
    n = max(problem.cost.shape)
    state = solved(problem, 10, tolerance=1e-12, keep=15 * n)
    ours = plan(state.x, state.y, problem)
    assert marginal_error(ours, problem) <= 1e-12
    assert abs(duality_gap(state.x, state.y, problem)) < 1e-12
    torch.testing.assert_close(ours, plan(*warm(problem, 4000)[:2], problem), rtol=0, atol=1e-10)
    ot = pytest.importorskip("ot")
    theirs = ot.sinkhorn(
        problem.a, problem.b, problem.cost, reg=1 / problem.eta, method="sinkhorn_log", stopThr=1e-13, numItermax=20000
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_the_plan_of_pots_first_test():
    """100 points of two dimensions to themselves, reg = 1, as in test_bregman.py: marginals to 1e-5, and the plan."""
    ot = pytest.importorskip("ot")
    x = torch.from_numpy(np.random.RandomState(0).randn(100, 2))
    problem = TransportInstance(*torch.full((2, 100), 0.01, dtype=torch.float64), torch.cdist(x, x).square(), 1.0)
    state = solved(problem, 5, tolerance=1e-9, dropped_mass=1e-3)
    found = plan(state.x, state.y, problem)
    for side in (0, 1):
        torch.testing.assert_close(found.sum(side), problem.a, rtol=0, atol=1e-5)
    theirs = ot.sinkhorn(*(part.numpy() for part in problem[:3]), 1.0, stopThr=1e-10)
    torch.testing.assert_close(found, torch.from_numpy(theirs), rtol=0, atol=1e-9)
    assert float((found - torch.outer(problem.a, problem.b)).abs().max()) > 1e-4  # the control


def test_the_narrow_gaussians_of_pots_test_of_stabilization():
    """Histograms of two Gaussians on 100 places, reg = 1e-5: sweeps in the other order are POT's."""
    ot = pytest.importorskip("ot")
    places = torch.arange(100, dtype=torch.float64)
    a, b = (torch.softmax(-((places - middle) / 10).square() / 2, 0) for middle in (30, 40))
    cost = (places[:, None] - places).square() / 99**2
    problem, turned = TransportInstance(a, b, cost, 1e5), TransportInstance(b, a, cost.T.contiguous(), 1e5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of not having converged yet
        theirs = ot.sinkhorn(a, b, cost, 1e-5, method="sinkhorn_log", stopThr=0, numItermax=60)
    state = warm(turned, 60)
    torch.testing.assert_close(plan(state.x, state.y, turned).T, theirs, rtol=0, atol=1e-6)
    assert float((plan(*warm(problem, 60)[:2], problem) - theirs).abs().max()) > 1e-4  # the control: the same order


def test_single_precision_reaches_its_own_rounding():
    problem = random_assignment(40, eta=100.0, dtype=torch.float32)
    state = solved(problem, tolerance=1e-5, keep=200)
    assert state.x.dtype == torch.float32
    assert marginal_error(plan(state.x, state.y, problem), problem) <= 1e-5


def test_a_saved_state_goes_on_bit_for_bit(tmp_path):
    problem = random_assignment(40, eta=100.0)
    state = zero_potentials(problem)
    for step in range(16):
        if step in (5, 13):  # in either stage
            torch.save(state._asdict(), tmp_path / "state.pt")
            restored = TransportState(**torch.load(tmp_path / "state.pt", weights_only=True))
            for _ in range(step, 16):
                restored = sinkhorn_newton_step(restored, problem, warmup=10, keep=120)
        state = sinkhorn_newton_step(state, problem, warmup=10, keep=120)
    assert (state.sweeps, state.newton_steps) == (restored.sweeps, restored.newton_steps) == (10, 6)
    assert torch.equal(state.x, restored.x)
    assert torch.equal(state.y, restored.y)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(5))
def test_a_concentrated_plan_needs_few_newton_steps(seed):
    """Dossier of the method: at most 20 steps where Sinkhorn is beyond 1e-7 after 5,000 sweeps."""
    problem = random_assignment(100, eta=400.0, seed=seed)
    state = solved(problem, keep=300)
    assert marginal_error(plan(state.x, state.y, problem), problem) <= 1e-10
    assert state.newton_steps <= 20
    plain = warm(problem, 5000)
    assert marginal_error(plan(plain.x, plain.y, problem), problem) > 1e-7


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_a_spread_plan_is_the_counter_example(seed):
    """With 3 entries a point it is slow, never wrong; choosing by mass is nearly dense Newton."""
    problem = point_clouds(60, 40, eta=50.0, seed=seed)
    sparse, by_mass, dense = (solved(problem, 10, **options) for options in ({"keep": 180}, {"dropped_mass": 1e-3}, {}))
    assert sparse.newton_steps == 60
    assert marginal_error(plan(sparse.x, sparse.y, problem), problem) > 1e-9
    assert dense.newton_steps <= by_mass.newton_steps <= 20


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("draw", "warmup", "steps", "kept"),
    [
        (lambda seed: random_assignment(100, eta=400.0, seed=seed), 20, 12, 5),
        (lambda seed: point_clouds(60, 40, eta=50.0, seed=seed), 10, 7, 15),
        (lambda seed: random_assignment(30, eta=5.0, seed=seed), 3, 3, None),
    ],
    ids=["concentrated", "spread", "nearly independent"],
)
def test_with_entries_enough_steps_are_those_of_dense_newton(draw, warmup, steps, kept, seed):
    """Steps to 1e-10 for seeds 0-2: 11, 9 and 7 with 5, 15 or all entries a point; 6, 5 and 4 with 15 or all; 2 with
    all, and 6 with 15."""
    problem = draw(seed)
    dense = solved(problem, warmup).newton_steps
    assert dense <= steps
    if kept:
        assert solved(problem, warmup, keep=kept * max(problem.cost.shape)).newton_steps == dense
    assert solved(problem, warmup, keep=3 * max(problem.cost.shape)).newton_steps > dense  # the control


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_the_papers_first_setting(seed):
    """n = 500, η = 1200, 20 sweeps, density 2/n: the paper counts 9 Newton steps, to machine accuracy."""
    problem = random_assignment(500, eta=1200.0, seed=seed)
    state = solved(problem, keep=plan_entries(2 / 500, 500, 500))
    assert marginal_error(plan(state.x, state.y, problem), problem) <= 1e-10
    assert state.newton_steps <= 25
