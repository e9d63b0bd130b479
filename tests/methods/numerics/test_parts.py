"""Transport in parts: the same as with the whole matrix, and memory that is said before, or refused."""

import pytest
import torch

from fisherexp.data.errors import DataError
from fisherexp.data.transport import cloud_parts, point_clouds
from fisherexp.methods.numerics.pot_sinkhorn import PotSinkhorn
from fisherexp.methods.numerics.sinkhorn import sinkhorn_sweep
from fisherexp.methods.numerics.sinkhorn_newton import SinkhornNewton, hessian_of_parts, newton_step, sparse_hessian
from fisherexp.methods.numerics.transport_solver import zero_potentials
from fisherexp.problems import memory
from fisherexp.problems.entropic_transport import (
    duality_gap,
    error_of,
    figures_of,
    marginal_error,
    plan,
    plan_parts,
    primal_value,
    rounded_plan,
)
from fisherexp.problems.transport import PART, PointClouds, RandomAssignment

WHOLE = point_clouds(30, 20, eta=30.0, seed=1)
SIZES = [1, 7, 29]  # rows at a time; 30 rows leave a shorter last part


def parts_of(rows, seed=1):
    return cloud_parts(30, 20, 30.0, rows, seed)


def swept(problem, sweeps=3):
    state = zero_potentials(problem)
    for _ in range(sweeps):
        state = sinkhorn_sweep(state, problem)
    return state


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rows", SIZES)
def test_sweeps_and_errors_are_those_of_the_whole(rows):
    ours, expected = swept(parts_of(rows)), swept(WHOLE)
    close(ours.x, expected.x)
    close(ours.y, expected.y)
    error = error_of(ours.x, ours.y, parts_of(rows))
    assert error.item() == pytest.approx(marginal_error(plan(*expected[:2], WHOLE), WHOLE).item(), rel=1e-9)
    other = swept(parts_of(rows, seed=2))
    assert (other.x - expected.x).abs().max() > 1e-3  # the control: of other points


@pytest.mark.parametrize("rows", [*SIZES, 30])
def test_figures_are_those_of_the_whole_plan(rows):
    x, y = swept(WHOLE, 1)[:2]
    x = x + 0.01 * torch.sin(torch.arange(30.0)).double()  # both marginals are wrong
    rounded = rounded_plan(plan(x, y, WHOLE), WHOLE)
    found = figures_of(x, y, parts_of(rows) if rows < 30 else WHOLE)
    expected = {
        "marginal_error": marginal_error(plan(x, y, WHOLE), WHOLE),
        "transport_cost": (WHOLE.cost * rounded).sum(),
        "entropy": -torch.special.xlogy(rounded, rounded).sum(),
        "objective": primal_value(rounded, WHOLE),
        "gap": duality_gap(x, y, WHOLE),
    }
    assert found["marginal_error"] > 1e-3
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-11), name


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("options", [{"keep": 60}, {"keep": 5}, {"dropped_mass": 1e-2}, {}])
def test_the_sparse_hessian_is_that_of_the_whole_plan(rows, options):
    x, y = swept(WHOLE)[:2]
    expected = sparse_hessian(plan(x, y, WHOLE), **options)
    problem = parts_of(rows)
    found = hessian_of_parts(lambda: plan_parts(x, y, problem), problem, **options)
    for ours, theirs in zip(found, expected, strict=True):
        close(ours, theirs)
    assert len(found.values) < 600 or not options


@pytest.mark.parametrize("options", [{"keep": 100}, {"dropped_mass": 1e-3}])
def test_newton_steps_are_those_of_the_whole(options):
    state, other = swept(WHOLE, 2), swept(parts_of(7), 2)
    for _ in range(4):
        state, report = newton_step(state, WHOLE, cg_tolerance=1e-10, **options)
        other, theirs = newton_step(other, parts_of(7), cg_tolerance=1e-10, **options)
        assert theirs.gain == pytest.approx(report.gain, rel=1e-6, abs=1e-16)
        assert theirs.step_size == report.step_size
    torch.testing.assert_close(plan(*other[:2], WHOLE), plan(*state[:2], WHOLE), rtol=1e-7, atol=1e-12)


def test_a_problem_goes_by_parts_where_it_is_large_or_told_to(monkeypatch, capsys):
    whole, told = (PointClouds(n=30, m=20, eta=30.0, rows_at_once=rows).load(seed=1) for rows in (None, 7))
    assert whole.transport.whole
    assert not told.transport.whole
    assert "30 x 20 costs, in 5 parts of 7 rows: about " in capsys.readouterr().err
    potentials = swept(told.transport, 20)[:2]
    assert told.evaluate(potentials) == pytest.approx(whole.evaluate(potentials), rel=1e-9)
    assert told.about() == whole.about()
    assert PointClouds(n=20_000, m=20_000).rows == PART // 20_000
    with pytest.raises(ValueError, match=r"method=pot_sinkhorn needs the whole matrix.*data\.rows_at_once=30"):
        PotSinkhorn().begin(told, 0)
    with pytest.raises(ValueError, match=r"method\.kept_per_point=null: all entries.*; method\.kept_per_point=3\.0"):
        SinkhornNewton(kept_per_point=None).begin(told, 0)


def test_what_does_not_fit_is_refused_before_anything_is_drawn(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 10**9)
    with pytest.raises(DataError, match=r"20000 x 20000 costs, whole: about 32 GB of memory, 1 GB are available"):
        RandomAssignment(n=20_000).load(seed=0)
    with pytest.raises(DataError, match=r"choose data\.rows_at_once=209, or less"):
        PointClouds(n=20_000, m=20_000, rows_at_once=20_000).load(seed=0)
    PointClouds(n=20_000, m=20_000).load(seed=0)
    assert memory.needed(20_000, 20_000, 209) < 10**9 < memory.needed(20_000, 20_000, 20_000)


def test_this_machine_has_memory():
    assert 2**26 < memory.available() < 2**50
