"""Penalties and their slopes by calculus, the three ways to one stationary point, information by closed forms."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso, LassoCV, LogisticRegression
from sklearn.metrics import mutual_info_score

from fisherexp.data.errors import DataError
from fisherexp.methods.statistics.information_screening import InformationScreening
from fisherexp.methods.statistics.mutual_information import (
    binned,
    binned_information,
    gaussian_information,
    information,
    mutual_information,
    profile,
    silverman,
)
from fisherexp.methods.statistics.nonconvex_penalties import concave_slope, soft_threshold, value
from fisherexp.methods.statistics.nonconvex_regression import NonconvexRegression
from fisherexp.methods.statistics.sparse_fit import SparseFit
from fisherexp.problems.sparse_regression import Columns, RegressionFile, SparseRegression, standardized

PROBLEM = SparseRegression(n=80, features=30, signals=3).load(0)
CLASSES = SparseRegression(n=80, features=30, signals=3, outcomes="binary").load(0)
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


@pytest.mark.parametrize("solver", ["accelerated", "conjugate"])
def test_the_logistic_lasso_is_that_of_scikit_learn(solver):
    method = finished(NonconvexRegression("lasso", 0.2, tolerance=1e-8, loss="logistic", solver=solver), CLASSES)
    inputs, outcomes = method.inputs[:, :-1].numpy(), CLASSES.instance["outcomes"].numpy()
    inverse = 1 / (80 * 0.2 * method.top)
    theirs = LogisticRegression(C=inverse, l1_ratio=1.0, solver="saga", tol=1e-9, max_iter=10**5)
    theirs.fit(inputs, outcomes)
    np.testing.assert_allclose(method.state.aggregated.numpy(), [*theirs.coef_[0], *theirs.intercept_], atol=1e-6)
    found = CLASSES.evaluate(method.solution())
    assert found["chosen"] == (theirs.coef_ != 0).sum() < 30
    assert found["fit_accuracy"] == pytest.approx(100 * theirs.score(inputs, outcomes))
    assert "fit_rmse" not in found
    with pytest.raises(ValueError, match=r"method\.loss=logistic: outcomes 0 and 1 are expected, these have 80 values"):
        NonconvexRegression(loss="logistic").begin(PROBLEM, 0)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("penalty", ["lasso", "scad", "mcp"])
def test_slopes_are_those_of_the_objective_and_no_steeper_than_their_bound(loss, penalty):
    data = CLASSES.instance
    strength = torch.linspace(0, 0.5, 30, dtype=torch.float64)  # the first is free, as an intercept is
    fit = SparseFit(data["inputs"], data["outcomes"], strength, SHAPE, penalty, loss)
    draws = torch.randn(2, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for at, along in zip(draws, torch.eye(30, dtype=torch.float64), strict=False):
        rise = (fit.objective(at + 1e-6 * along) - fit.objective(at - 1e-6 * along)) / 2e-6
        assert ((fit.slope(at) + strength * at.sign()) @ along).item() == pytest.approx(rise, abs=1e-6)
    there, here = (fit.slope(at) for at in draws)
    assert (there - here).norm() <= fit.lipschitz() * (draws[0] - draws[1]).norm()


def test_a_threshold_is_the_proximal_map_of_the_absolute_value():
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    for at in (-2.0, -0.7, 0.3, 0.7, 1.9):
        least = grid[((grid - at).square() / 2 + 0.7 * grid.abs()).argmin()]
        assert soft_threshold(torch.tensor(at).double(), 0.7).item() == pytest.approx(least.item(), abs=1e-3)


@pytest.mark.parametrize("penalty", ["scad", "mcp"])
def test_accelerated_conjugate_and_plain_steps_find_one_stationary_point(penalty):
    solvers = ("accelerated", "proximal", "conjugate")
    fast, slow, third = (finished(NonconvexRegression(penalty, solver=kind), PROBLEM) for kind in solvers)
    assert fast.metrics()["reached"] == slow.metrics()["reached"] == third.metrics()["reached"] == 1
    for other in (slow, third):
        torch.testing.assert_close(fast.state.aggregated, other.state.aggregated, atol=1e-4, rtol=0)
        assert fast.curve[-1] == pytest.approx(other.curve[-1], abs=1e-8)
    assert all(later <= earlier for earlier, later in zip(third.curve[:-1], third.curve[1:], strict=True))
    assert len(third.curve) < 0.5 * len(slow.curve)
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


def test_bins_are_those_of_the_largest_penalized_likelihood_and_their_information_that_of_scikit_learn():
    draw = torch.Generator().manual_seed(0)
    sides = torch.where(torch.rand(400, generator=draw) < 0.5, -3.0, 3.0).double()
    two = sides + 0.3 * torch.randn(400, generator=draw, dtype=torch.float64)
    flat = torch.rand(400, generator=draw, dtype=torch.float64)

    def worth(values, bins):
        counts = np.histogram(values.numpy(), bins)[0]
        counts = counts[counts > 0]
        return (counts * np.log(counts)).sum() + 400 * np.log(bins) - (bins - 1 + np.log(bins) ** 2.5)

    for values in (two, flat):
        places, bins = binned(values)
        assert bins == 1 + int(np.argmax([worth(values, bins) for bins in range(1, 100)]))
        np.testing.assert_array_equal(np.bincount(places, minlength=bins), np.histogram(values.numpy(), bins)[0])
    assert binned(flat)[1] == 1 < binned(two)[1]  # a flat column is worth no bins
    noisy = two + torch.randn(400, generator=draw, dtype=torch.float64)
    expected = mutual_info_score(binned(two)[0], binned(noisy)[0])
    assert binned_information(two, noisy) == pytest.approx(expected) != 0
    assert binned_information(two, torch.ones_like(two)) == 0


def test_screening_keeps_what_it_should_and_writes_the_ranking(tmp_path):
    method = finished(InformationScreening(keep=2, points=40), PROBLEM)
    assert PROBLEM.evaluate(method.solution())["chosen"] == 2
    method.leave_files(tmp_path)
    lines = (tmp_path / "ranking.csv").read_text().splitlines()
    assert lines[0] == "column,mutual_information,correlation"
    assert int(lines[1].split(",")[0]) == int(torch.tensor(method.scores).argmax())
    counted = finished(InformationScreening("binned_information"), PROBLEM)
    assert counted.scores[3] == binned_information(counted.inputs[:, 3], counted.outcome_column)
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
    half of the iterations of the plain proximal gradient. A lasso of the strength that cross-validation chooses takes
    more than thirty columns, and is still farther off."""
    problem = SparseRegression().load(seed)
    found = {}
    inputs, outcomes, truth = (problem.instance[name].numpy() for name in ("inputs", "outcomes", "coefficients"))
    tuned = LassoCV(alphas=30, cv=5).fit(inputs, outcomes).coef_
    assert (tuned != 0).sum() > 30
    for name in ("scad", "mcp", "lasso"):
        found[name] = problem.evaluate(finished(NonconvexRegression(name), problem).solution())
    for name in ("scad", "mcp"):
        assert found[name]["support_f1"] == 100
        assert found[name]["coefficient_error"] < 0.7 * np.linalg.norm(tuned - truth)
        assert found[name]["coefficient_error"] < 0.5 * found["lasso"]["coefficient_error"]
        kinds = ("accelerated", "proximal", "conjugate")
        fast, slow, third = (finished(NonconvexRegression(name, solver=kind), problem) for kind in kinds)
        assert len(fast.curve) < 0.5 * len(slow.curve)
        assert len(third.curve) < 0.2 * len(slow.curve)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_logistic_coefficients_are_spared_too(seed):
    """n = 1000, d = 100, at one strength: all ten signals and at most one other, a fifth of the lasso's error. The
    conjugate direction counts here: the search for a length alone takes twice the steps at least."""
    problem = SparseRegression(n=1000, features=100, outcomes="binary").load(seed)
    options = {"strength": 0.3, "loss": "logistic", "solver": "conjugate"}
    lasso = problem.evaluate(finished(NonconvexRegression("lasso", **options), problem).solution())
    for name in ("scad", "mcp"):
        method = finished(NonconvexRegression(name, **options), problem)
        found = problem.evaluate(method.solution())
        assert found["recall"] == 100
        assert found["chosen"] <= 11
        assert found["coefficient_error"] < 0.2 * lasso["coefficient_error"]
        alone = NonconvexRegression(name, **options)
        alone.begin(problem, seed)
        while not alone.done:
            alone.step()
            alone.state = alone.state._replace(move=torch.zeros_like(alone.state.move))
        assert len(method.curve) < 0.5 * len(alone.curve)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_information_finds_a_square_that_no_correlation_shows(seed):
    problem = SparseRegression(n=500, features=200, signals=1, shape="square").load(seed)
    true = int(problem.instance["coefficients"].argmax())
    ranks = {}
    for score in ("mutual_information", "binned_information", "correlation"):
        scores = torch.tensor(finished(InformationScreening(score), problem).scores)
        ranks[score] = int((scores > scores[true]).sum())
    assert ranks["mutual_information"] == ranks["binned_information"] == 0
    assert ranks["correlation"] > 0
