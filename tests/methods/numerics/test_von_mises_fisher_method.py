"""The fit as a method: against SciPy's, resumed, on files, and in as many dimensions as the paper's largest."""

import numpy as np
import pytest
import torch
from scipy import stats

from fisherexp.data.errors import DataError
from fisherexp.methods.numerics.von_mises_fisher import VonMisesFisher
from fisherexp.problems.directions import DirectionFile, SampledDirections
from fisherexp.special import von_mises_fisher as vmf


@pytest.fixture(scope="module")
def problem():
    return SampledDirections(n=400, p=12, concentration=25.0).load(seed=1)


def finished(method, problem):
    method.begin(problem, 0)
    while not method.done:
        method.step()
    return method


def test_the_fit_is_scipys_and_the_shortcuts_are_near(problem):
    mean, kappa = stats.vonmises_fisher.fit(problem.train.numpy())
    method = finished(VonMisesFisher(), problem)
    assert float(method.solution()[1]) == pytest.approx(kappa, rel=1e-7)
    torch.testing.assert_close(method.solution()[0], torch.from_numpy(mean), rtol=1e-12, atol=1e-12)
    errors = [
        finished(VonMisesFisher(name), problem).metrics()["moment_error"] for name in ("closed_form", "two_steps")
    ]
    assert errors[0] > 1e-4 > errors[1] > method.metrics()["moment_error"]
    found = problem.evaluate(method.solution())
    assert found["held_out_log_likelihood"] > found["uniform_log_likelihood"] + 5
    assert found["concentration_error"] < 4 * (2 / (11 * 400)) ** 0.5
    assert found["kl_divergence"] < 0.05


def test_density_of_cosines_has_mass_one_and_the_right_mean():
    t = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[1:-1]
    kappa = torch.tensor(25.0, dtype=torch.float64)
    density = vmf.cosine_log_density(t, kappa, 12).exp()
    assert float(torch.trapezoid(density, t)) == pytest.approx(1, abs=1e-7)
    assert float(torch.trapezoid(density * (1 - t), t)) == pytest.approx(float(vmf.mean_gap(kappa, 12)), abs=1e-7)


def test_goes_on_where_it_was_and_leaves_its_figure(problem, tmp_path):
    whole, method = finished(VonMisesFisher(), problem), VonMisesFisher()
    method.begin(problem, 0)
    method.step()
    again = VonMisesFisher()
    again.begin(problem, 0)
    again.load_state_dict(method.state_dict())
    while not again.done:
        again.step()
    assert torch.equal(again.solution()[1], whole.solution()[1])
    whole.leave_files(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"cosines.png", "cosines.pdf"}


def test_own_vectors_are_scaled_to_directions_and_odd_ones_refused(tmp_path, problem):
    parts = {name: problem.instance[name].numpy() for name in ("train", "test")}
    np.savez(tmp_path / "own.npz", train=3 * parts["train"], test=parts["test"])
    own = DirectionFile(str(tmp_path / "own.npz")).load(0)
    torch.testing.assert_close(own.train, problem.train)
    for name, arrays, said in (
        ("zero", {**parts, "test": np.zeros((2, 3))}, r"test\[0\] has length 0"),
        ("flat", {**parts, "train": np.ones(3)}, r"train has shape \(3,\)"),
        ("part", {"train": parts["train"]}, "arrays train and test"),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(DataError, match=said):
            DirectionFile(str(tmp_path / f"{name}.npz")).load(0)
    with pytest.raises(DataError, match="there is no"):
        DirectionFile("nowhere.npz").load(0)


def test_equal_vectors_are_refused():
    problem = SampledDirections(n=3, p=4)
    problem.instance = {"train": torch.eye(4, dtype=torch.float64)[[0, 0, 0]]}
    with pytest.raises(ValueError, match="κ is not finite"):
        VonMisesFisher().begin(problem, 0)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("p", "concentration"), [(2048, 1000.0), (8192, 4000.0), (32768, 20000.0)])
def test_planted_concentrations_are_found_where_scipy_fails_too(p, concentration, seed):
    """κ within four standard errors, √(1 / (n A'(κ))); SciPy's density is finite at p = 2048 only."""
    problem = SampledDirections(n=500, p=p, concentration=concentration).load(seed)
    found = problem.evaluate(finished(VonMisesFisher(), problem).solution())
    kappa = torch.tensor(concentration, dtype=torch.float64)
    gap = vmf.mean_gap(kappa, p)
    slope = gap * (2 - gap) - (p - 1) * (1 - gap) / kappa
    # The mean direction is estimated, too, and takes p - 1 of n p degrees of freedom: R̄ is long by (1 - R̄²) / 2 n R̄.
    bias = float(gap * (2 - gap) / (2 * 500 * (1 - gap)) / slope)
    assert found["concentration_error"] * concentration < bias + 4 * float((1 / (500 * slope)) ** 0.5)
    assert found["held_out_log_likelihood"] > found["uniform_log_likelihood"]
    with np.errstate(all="ignore"):
        known = stats.vonmises_fisher(problem.instance["mean"].numpy(), concentration)
        assert np.isfinite(known.logpdf(problem.instance["test"][0].numpy())) == (p == 2048)
