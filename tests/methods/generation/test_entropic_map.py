"""The plan between samples: POT's own where it was fitted, the closed form between Gaussians, and a spiral."""

import pytest
import torch
from by_steps import finished

from fisherexp.methods.generation.entropic_map import EntropicMap
from fisherexp.methods.generation.light_sb import LightSB
from fisherexp.problems import unpaired
from fisherexp.problems.unpaired import GaussianPair, SwissRoll

ot = pytest.importorskip("ot")


@pytest.fixture
def pair(monkeypatch):
    monkeypatch.setattr(unpaired, "COMPARED", 600)
    return GaussianPair(n=400).load(seed=0)


def begun(problem, seed=0, **options):
    method = EntropicMap(**options)
    method.begin(problem, seed)
    return method


def test_at_the_fitted_points_it_is_the_plan_itself(pair):
    method = finished(begun(pair, points=60, tolerance=1e-10, max_iterations=2000))
    rows = [torch.full((60,), 1 / 60, dtype=torch.float64)] * 2
    plan = ot.bregman.sinkhorn_log(*rows, torch.from_numpy(method.cost), pair.epsilon, 5000, 1e-12)
    weights = method.solution().weights(method.source)
    torch.testing.assert_close(weights / 60, plan, rtol=0, atol=1e-8)
    mean, covariance = method.solution().moments(method.source.float())
    torch.testing.assert_close(mean.double(), 60 * plan @ method.target, rtol=0, atol=1e-4)
    second = torch.einsum("nm,md,me->nde", 60 * plan, method.target, method.target)
    expected = second - mean[:, :, None].double() * mean[:, None].double()
    torch.testing.assert_close(covariance.double(), expected, rtol=0, atol=1e-3)


def test_the_gaussian_plan_is_approached_and_the_independent_one_is_far(pair):
    many, few, independent = (
        pair.evaluate(finished(begun(pair, carried=carried, points=points)).solution())["plan_error"]
        for carried, points in (("draw", 400), ("mean", 40), ("independent", 400))
    )
    assert many < few < independent
    assert many < 5 < 50 < independent


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_a_mixture_reaches_a_spiral_that_a_plan_between_few_samples_does_not(seed):
    """The mixture is fitted to all 20,000 points of a swiss roll; the plan holds 500, whose own scatter is left. The
    barycentric map is farther still."""
    problem = SwissRoll().load(seed)
    light = LightSB()
    light.begin(problem, seed)
    shares = {"light_sb": problem.evaluate(finished(light).solution())["energy_share"]}
    for carried in ("draw", "mean"):
        shares[carried] = problem.evaluate(finished(begun(problem, seed, carried=carried)).solution())["energy_share"]
    assert shares["light_sb"] < 0.05 < shares["draw"] < shares["mean"]
