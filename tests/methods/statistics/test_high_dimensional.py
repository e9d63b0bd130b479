"""Penalties and their slopes by calculus, the three ways to one stationary point, information by closed forms."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from fisherexp.data.errors import DataError
from fisherexp.methods.statistics.information_screening import InformationScreening
from fisherexp.methods.statistics.mutual_information import (
    gaussian_information,
    information,
    mutual_information,
    profile,
    silverman,
)
from fisherexp.methods.statistics.nonconvex_penalties import concave_slope, soft_threshold, value
from fisherexp.methods.statistics.nonconvex_regression import NonconvexRegression
from fisherexp.problems.sparse_regression import Columns, RegressionFile, SparseRegression, standardized

PROBLEM = SparseRegression(n=80, features=30, signals=3).load(0)
STRENGTH, SHAPE = 0.7, 3.0


@pytest.mark.parametrize("penalty", ["lasso", "scad", "mcp"])
def test_a_penalty_is_a_lasso_and_a_concave_part(penalty):
    points = torch.linspace(-4, 4, 41, dtype=torch.float64) + 0.013  # none on a kink
    given = points.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(given, STRENGTH, SHAPE, penalty), given)
    torch.testing.assert_close(slope, STRENGTH * points.sign() + concave_slope(points, STRENGTH, SHAPE, penalty))
    assert value(torch.zeros(1).double(), STRENGTH, SHAPE, penalty) == 0
    far = value(torch.tensor([90.0, 99.0]).double()[:1], STRENGTH, SHAPE, penalty).item()
    expected = {"lasso": 63.0, "scad": STRENGTH**2 * (SHAPE + 1) / 2, "mcp": SHAPE * STRENGTH**2 / 2}
    assert far == pytest.approx(expected[penalty])  # large coefficients are spared, but for the lasso
    ends = torch.tensor([STRENGTH, SHAPE * STRENGTH]).double()
    for side in (1 - 1e-9, 1 + 1e-9):  # no jump
        torch.testing.assert_close(
            concave_slope(side * ends, STRENGTH, SHAPE, penalty), concave_slope(ends, STRENGTH, SHAPE, penalty)
        )


def finished(method, problem, seed=0):
    method.begin(problem, seed)
    while not method.done:
        method.step()
    return method


def test_the_lasso_is_that_of_scikit_learn():
    method = finished(NonconvexRegression("lasso", 0.2, tolerance=1e-10), PROBLEM)
    inputs, outcomes = PROBLEM.instance["inputs"].numpy(), PROBLEM.instance["outcomes"].numpy()
    theirs = Lasso(0.2 * method.top, tol=1e-12, max_iter=10**5)
    theirs.fit((inputs - inputs.mean(0)) / inputs.std(0), outcomes)
    np.testing.assert_allclose(method.state.aggregated.numpy(), theirs.coef_, atol=1e-8)
    found = PROBLEM.evaluate(method.solution())
    assert found["chosen"] == (theirs.coef_ != 0).sum() < 30
    predicted = theirs.predict((inputs - inputs.mean(0)) / inputs.std(0))
    assert found["fit_rmse"] == pytest.approx(np.sqrt(np.square(outcomes - predicted).mean()))


@pytest.mark.parametrize("penalty", ["scad", "mcp"])
def test_accelerated_and_plain_steps_find_one_stationary_point(penalty):
    fast, slow = (finished(NonconvexRegression(penalty, accelerated=kind), PROBLEM) for kind in (True, False))
    assert fast.metrics()["reached"] == slow.metrics()["reached"] == 1
    torch.testing.assert_close(fast.state.aggregated, slow.state.aggregated, atol=1e-4, rtol=0)
    assert fast.curve[-1] == pytest.approx(slow.curve[-1], abs=1e-8)
    assert len(fast.curve) < 0.8 * len(slow.curve)
    slopes = fast.inputs.T @ (fast.inputs @ fast.state.aggregated - fast.outcomes) / 80
    slopes = slopes + concave_slope(fast.state.aggregated, fast.strength * fast.top, fast.shape, penalty)
    fixed = soft_threshold(fast.state.aggregated - slopes, fast.strength * fast.top)
    torch.testing.assert_close(fixed, fast.state.aggregated, atol=1e-4, rtol=0)
    assert set(slow.metrics()) == {"reached", "iterations"}


def test_options_that_do_not_go_together_are_refused():
    for penalty, shape in (("scad", 2.0), ("mcp", 1.0)):
        with pytest.raises(ValueError, match=rf"method\.shape={shape}: more than {shape:g}"):
            NonconvexRegression(penalty, shape=shape).begin(PROBLEM, 0)
    with pytest.raises(ValueError, match=r"method\.points=1"):
        InformationScreening(points=1).begin(PROBLEM, 0)


def test_information_of_a_grid():
    first, second = torch.tensor([0.2, 0.3, 0.5]).double(), torch.tensor([0.6, 0.4]).double()
    assert information(torch.outer(first, second), 1.0) == pytest.approx(0, abs=1e-12)
    assert information(torch.eye(4).double(), 0.1) == pytest.approx(np.log(4))


def test_kernels_have_mass_one_and_the_width_they_say():
    heights, step = profile(torch.zeros(1, dtype=torch.float64), 2001, 0.4)
    grid = torch.linspace(-1, 1, 2001, dtype=torch.float64) * 0.4 * 5**0.5
    assert (heights[:, 0].sum() * step).item() == pytest.approx(1, abs=1e-3)
    assert ((heights[:, 0] * grid.square()).sum() * step).item() == pytest.approx(0.16, rel=1e-2)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
def test_information_of_gaussians_is_that_of_smoothed_ones(correlation):
    """A kernel of variance h² adds as much to each column: their correlation falls to ρ / (1 + h²)."""
    draw = torch.Generator().manual_seed(0)
    pair = torch.randn(4000, 2, generator=draw, dtype=torch.float64)
    pair[:, 1] = correlation * pair[:, 0] + (1 - correlation**2) ** 0.5 * pair[:, 1]
    found = mutual_information(*standardized(pair)[0].T, points=100)
    smoothed = correlation / (1 + silverman(4000) ** 2)
    assert found == pytest.approx(gaussian_information(smoothed), abs=0.02)
    assert mutual_information(torch.ones(9).double(), torch.arange(9).double()) == 0


def test_screening_keeps_what_it_should_and_writes_the_ranking(tmp_path):
    method = finished(InformationScreening(keep=2, points=40), PROBLEM)
    assert PROBLEM.evaluate(method.solution())["chosen"] == 2
    method.leave_files(tmp_path)
    lines = (tmp_path / "ranking.csv").read_text().splitlines()
    assert lines[0] == "column,mutual_information,correlation"
    assert int(lines[1].split(",")[0]) == int(torch.tensor(method.scores).argmax())
    plain = finished(InformationScreening("correlation"), PROBLEM)
    torch.testing.assert_close(torch.tensor(plain.scores).double(), plain.correlations.abs())


def test_truth_and_own_tables(tmp_path):
    truth = PROBLEM.instance["coefficients"]
    found = PROBLEM.evaluate(Columns(truth.abs(), truth))
    assert (found["recall"], found["support_f1"], found["coefficient_error"], found["chosen"]) == (100, 100, 0, 3)
    assert found["fit_rmse"] == pytest.approx(1.0, abs=0.2)  # the noise
    inputs = SparseRegression(n=5000, features=4, signals=1).load(0).instance["inputs"]
    chain = 0.5 ** (torch.arange(4)[:, None] - torch.arange(4)).abs().double()
    torch.testing.assert_close(torch.corrcoef(inputs.T), chain, atol=0.05, rtol=0)
    file = tmp_path / "table.csv"
    file.write_text("a,y,b\n1,2,3\n2,4,1\n3,6,2\n")
    own = RegressionFile(str(file), "y").load(0)
    assert own.names == ["a", "b"]
    assert own.instance["outcomes"].tolist() == [2, 4, 6]
    assert set(own.evaluate(Columns(torch.ones(2), torch.tensor([2.0, 0.0]).double()))) == {"chosen", "fit_rmse"}
    with pytest.raises(DataError, match=r"data\.target=z: table\.csv has a, y, b"):
        RegressionFile(str(file), "z").load(0)
    file.write_text("a,y\n1,2\nx,4\n3,6\n")
    with pytest.raises(DataError, match=r"column 'a' is not of numbers"):
        RegressionFile(str(file), "y").load(0)
    with pytest.raises(DataError, match=r"data\.signals=31"):
        SparseRegression(features=30, signals=31).load(0)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_penalties_that_spare_large_coefficients_halve_the_error(seed):
    """n = 200, d = 500, ten signals: exact support and at most half of the lasso's error, at one strength; in at most
    half of the iterations of the plain proximal gradient."""
    problem = SparseRegression().load(seed)
    found = {}
    for name in ("scad", "mcp", "lasso"):
        found[name] = problem.evaluate(finished(NonconvexRegression(name), problem).solution())
    for name in ("scad", "mcp"):
        assert found[name]["support_f1"] == 100
        assert found[name]["coefficient_error"] < 0.5 * found["lasso"]["coefficient_error"]
        fast, slow = (finished(NonconvexRegression(name, accelerated=kind), problem) for kind in (True, False))
        assert len(fast.curve) < 0.5 * len(slow.curve)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_information_finds_a_square_that_no_correlation_shows(seed):
    problem = SparseRegression(n=500, features=200, signals=1, shape="square").load(seed)
    true = int(problem.instance["coefficients"].argmax())
    ranks = {}
    for score in ("mutual_information", "correlation"):
        scores = torch.tensor(finished(InformationScreening(score), problem).scores)
        ranks[score] = int((scores > scores[true]).sum())
    assert ranks["mutual_information"] == 0
    assert ranks["correlation"] > 0
