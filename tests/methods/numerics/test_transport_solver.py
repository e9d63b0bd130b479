"""Solvers of transport as methods: their steps are the pure ones, they stop for a reason and go on bit for bit."""

import builtins

import pytest
import torch

from fisherexp.methods.numerics.pot_sinkhorn import PotSinkhorn
from fisherexp.methods.numerics.sinkhorn import Sinkhorn, sinkhorn_sweep
from fisherexp.methods.numerics.sinkhorn_newton import SinkhornNewton, sinkhorn_newton_step
from fisherexp.methods.numerics.transport_solver import zero_potentials
from fisherexp.problems.entropic_transport import marginal_error, plan
from fisherexp.problems.transport import PointClouds, RandomAssignment

CONCENTRATED, SPREAD = {"n": 40, "eta": 100.0}, {"n": 25, "m": 15, "eta": 20.0}


def finished(method, problem, seed=0):
    method.begin(problem, seed)
    while not method.done:
        method.step()
    return method


def test_steps_are_those_of_the_pure_functions():
    problem = RandomAssignment(**CONCENTRATED).load(0)
    method = finished(SinkhornNewton(warmup=10, kept_per_point=4.0, cg_tolerance=1e-6), problem)
    state = zero_potentials(problem.transport)
    for _ in range(method.iterations):
        state = sinkhorn_newton_step(state, problem.transport, warmup=10, keep=160, cg_tolerance=1e-6)
    assert torch.equal(method.state.x, state.x)
    assert (method.state.sweeps, method.state.newton_steps) == (state.sweeps, state.newton_steps)
    sinkhorn = finished(Sinkhorn(max_iterations=7), problem)
    state = zero_potentials(problem.transport)
    for _ in range(7):
        state = sinkhorn_sweep(state, problem.transport)
    assert torch.equal(sinkhorn.solution()[1], state.y)


def test_entries_are_kept_per_point_of_the_larger_side():
    """Of 25 sources and 15 targets."""
    problem = PointClouds(**SPREAD).load(0)
    method = SinkhornNewton(warmup=0, kept_per_point=2.0)
    method.begin(problem, 0)
    assert min(problem.transport.cost.shape) < max(problem.transport.cost.shape) == 25
    assert method.step()["kept"] == 50


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (lambda: SinkhornNewton(warmup=10), "tolerance"),
        (lambda: SinkhornNewton(warmup=10, max_iterations=12), "limit"),
        (lambda: Sinkhorn(max_iterations=50), "limit"),
        (lambda: Sinkhorn(tolerance=1.0), "tolerance"),
    ],
)
def test_stops_for_a_reason_and_counts_iterations_only_to_the_tolerance(method, reason):
    problem = RandomAssignment(**CONCENTRATED).load(0)
    method = finished(method(), problem)
    assert method.outcome == {"stopped": reason}
    found = method.metrics()
    assert found["reached"] == (reason == "tolerance")
    assert ("iterations" in found) == (reason == "tolerance")
    error = float(marginal_error(plan(*method.solution(), problem.transport), problem.transport))
    assert method.curve[-1] == [method.iterations, error]
    assert [iterations for iterations, _ in method.curve] == list(range(method.iterations + 1))


@pytest.mark.parametrize(
    ("method", "problem", "change", "advice"),
    [
        (SinkhornNewton, PointClouds(n=60, m=40, eta=50.0), {"warmup": 10, "max_iterations": 70}, "dropped_mass=0.001"),
        (
            Sinkhorn,
            PointClouds(**SPREAD),
            {"max_iterations": 30},
            "method.max_iterations=300, or method=sinkhorn_newton",
        ),
    ],
)
def test_a_run_that_has_not_converged_says_so_and_what_to_change(method, problem, change, advice, caplog):
    """In one line with the error that is left; with what it says the run converges, and no line is there."""
    problem.load(0)
    short = finished(method(**change), problem)
    (record,) = caplog.records
    said, left = record.getMessage(), f"{short.curve[-1][1]:.2e} after {short.iterations} iterations"
    assert f"{method.__name__} has not converged: marginal error {left}, where method.tolerance=1e-10" in said
    assert said.endswith(advice)
    caplog.clear()
    better = {"kept_per_point": None, "dropped_mass": 1e-3} if "dropped_mass" in advice else {"max_iterations": 300}
    assert finished(method(**change | better), problem).stopped == "tolerance"
    assert not caplog.records


def test_stops_where_no_step_ascends():
    method = finished(SinkhornNewton(warmup=1, max_iterations=3), RandomAssignment(**CONCENTRATED).load(0))
    method.max_iterations = 100
    assert not method.done
    method.state = method.state._replace(step_size=0.0)
    assert method.done
    assert method.stopped == "no ascent"
    assert method.remedy == "a larger method.tolerance, or a start by more sweeps: method.warmup=100"


@pytest.mark.parametrize(
    "make",
    [lambda: SinkhornNewton(warmup=5), lambda: Sinkhorn(max_iterations=9), lambda: PotSinkhorn(max_iterations=40)],
    ids=["newton", "sinkhorn", "pot"],
)
@pytest.mark.parametrize("stop", [1, 3])
def test_goes_on_bit_for_bit(make, stop, tmp_path):
    if "Pot" in type(make()).__name__:
        pytest.importorskip("ot")
    problem = RandomAssignment(**CONCENTRATED).load(0)
    whole = finished(make(), problem)
    method = make()
    method.begin(problem, 0)
    for _ in range(stop):
        method.step()
    torch.save(method.state_dict(), tmp_path / "state")
    resumed = make()
    resumed.begin(problem, 0)
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    while not resumed.done:
        resumed.step()
    assert torch.equal(resumed.state.x, whole.state.x)
    assert resumed.curve == whole.curve
    assert resumed.metrics() == whole.metrics()


def test_few_entries_are_slow_on_spread_plans_and_dropped_mass_is_not():
    problem = PointClouds(n=60, m=40, eta=50.0).load(0)
    few = finished(SinkhornNewton(warmup=10, kept_per_point=2.0, max_iterations=70), problem)
    by_mass = finished(SinkhornNewton(warmup=10, kept_per_point=None, dropped_mass=1e-3, max_iterations=70), problem)
    assert few.stopped == "limit"
    assert by_mass.stopped == "tolerance"
    with pytest.raises(ValueError, match=r"needs method\.kept_per_point=null"):
        SinkhornNewton(dropped_mass=0.1)


def test_pot_reaches_the_same_fixed_point_in_as_many_sweeps():
    pytest.importorskip("ot")
    problem = PointClouds(**SPREAD).load(0)
    theirs, ours = finished(PotSinkhorn(tolerance=1e-13), problem), finished(Sinkhorn(tolerance=1e-13), problem)
    plans = [plan(*method.solution(), problem.transport) for method in (theirs, ours)]
    torch.testing.assert_close(*plans, rtol=0, atol=1e-12)
    assert abs(theirs.iterations - ours.iterations) <= 10  # it looks after every tenth
    cut = finished(PotSinkhorn(max_iterations=23, tolerance=1e-15), problem)
    assert cut.iterations == 23


def test_without_pot_one_line_says_what_to_install(monkeypatch):
    load = builtins.__import__

    def without(name, *rest):
        if name == "ot":
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fisherexp\[ot\]'"):
        PotSinkhorn().begin(RandomAssignment(n=4).load(0), 0)


def test_the_figure_shows_both_stages(tmp_path):
    method = finished(SinkhornNewton(warmup=10), RandomAssignment(**CONCENTRATED).load(0))
    method.leave_files(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"convergence.png", "convergence.pdf"}


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_newton_reaches_in_few_steps_what_sinkhorn_misses(seed):
    """n = 100, η = 400, three entries per point (dossier of the method; the paper has n = 500, η = 1200)."""
    problem = RandomAssignment(n=100, eta=400.0).load(seed)
    newton = finished(SinkhornNewton(), problem)
    assert newton.stopped == "tolerance"
    assert newton.state.newton_steps <= 20
    sinkhorn = finished(Sinkhorn(max_iterations=5000), problem)
    assert sinkhorn.curve[-1][1] > 1e-7
