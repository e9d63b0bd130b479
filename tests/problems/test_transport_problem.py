"""Transport as a problem: its metrics against the definitions, its instances, what is refused."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from fisherexp.data import transport
from fisherexp.data.digits import Digits
from fisherexp.data.errors import DataError
from fisherexp.methods.numerics.sinkhorn import sinkhorn_sweep
from fisherexp.methods.numerics.transport_solver import zero_potentials
from fisherexp.problems.entropic_transport import plan
from fisherexp.problems.transport import ImagePair, ImagePairAbsolute, PointClouds, RandomAssignment, TransportFile


def swept(problem, sweeps):
    state = zero_potentials(problem.transport)
    for _ in range(sweeps):
        state = sinkhorn_sweep(state, problem.transport)
    return state.x, state.y


def test_metrics_follow_the_definitions_at_the_fixed_point():
    problem = PointClouds(n=9, m=6, eta=8.0).load(seed=1)
    x, y = swept(problem, 500)
    found = problem.evaluate((x, y))
    expected = plan(x, y, problem.transport).numpy()  # its marginals are right: rounding leaves it as it is
    assert found["transport_cost"] == pytest.approx((expected * problem.transport.cost.numpy()).sum(), rel=1e-12)
    assert found["entropy"] == pytest.approx(-(expected * np.log(expected)).sum(), rel=1e-12)
    assert found["marginal_error"] < 1e-13
    assert abs(found["relative_gap"]) < 1e-12


def test_the_gap_bounds_the_distance_to_the_fixed_point():
    problem = PointClouds(n=9, m=6, eta=8.0).load(seed=1)
    best = problem.evaluate(swept(problem, 500))
    objective = best["transport_cost"] - best["entropy"] / problem.eta
    for sweeps in (1, 2, 5, 10):
        found = problem.evaluate(swept(problem, sweeps))
        above = found["transport_cost"] - found["entropy"] / problem.eta
        assert 0 < above - objective <= found["relative_gap"] * abs(above)


@pytest.mark.parametrize("eta", [5.0, 50.0, 500.0])
def test_the_plan_costs_little_more_than_what_linear_programming_finds(eta):
    problem = RandomAssignment(n=6, eta=eta).load(seed=0)
    n, cost = 6, problem.transport.cost.numpy()
    rows, columns = np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))
    best = linprog(cost.flatten(), A_eq=np.vstack([rows, columns]), b_eq=np.full(2 * n, 1 / n)).fun
    found = problem.evaluate(swept(problem, 3000))["transport_cost"]
    # A plan's entropy lies between log n and 2 log n.
    assert best < found <= best + np.log(n) / eta
    product = float((problem.transport.cost / n**2).sum())
    assert product > best + np.log(n) / 500  # control: of the sharpest, the bound means something


def test_the_seed_draws_the_instance():
    first, again, other = (RandomAssignment(n=5).load(seed) for seed in (0, 0, 1))
    assert first.checksum() == again.checksum() != other.checksum()
    assert first.about() == {"n": 5, "m": 5, "eta": 1200.0}


def test_pairs_of_images():
    squared, absolute = (kind(Digits(), eta=50.0).load(seed=0) for kind in (ImagePair, ImagePairAbsolute))
    assert squared.transport.cost.shape == (64, 64)
    assert torch.equal(squared.transport.a, absolute.transport.a)
    assert squared.transport.cost[0, 1] == pytest.approx(1 / 98)  # of the diagonal, 7² + 7²
    assert absolute.transport.cost[0, 1] == pytest.approx(1 / 14)
    assert squared.altered  # published figures are those of MNIST
    assert not RandomAssignment().altered
    assert RandomAssignment(n=499).altered


def test_own_file(tmp_path):
    given = transport.point_clouds(5, 4, eta=9.0)
    np.savez(tmp_path / "mine.npz", a=given.a, b=given.b, cost=given.cost)
    problem = TransportFile("mine.npz", eta=9.0, root=str(tmp_path)).load(seed=0)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(problem.transport[:3], given[:3], strict=True))
    with pytest.raises(DataError, match=r"there is no 'other\.npz' in .*; set data\.path"):
        TransportFile("other.npz", eta=9.0, root=str(tmp_path)).load(seed=0)
