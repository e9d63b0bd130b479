"""Closed forms between Gaussians against Sinkhorn on a grid, and limits of ε; the energy distance against scipy."""

import math

import pytest
import torch
from scipy.stats import energy_distance as scipy_energy_distance

from fisherexp.data.transport import instance
from fisherexp.methods.numerics.sinkhorn import sinkhorn_sweep
from fisherexp.methods.numerics.transport_solver import zero_potentials
from fisherexp.metrics.energy import energy_distance
from fisherexp.metrics.gaussian_bridge import bures_wasserstein, conditional_moments, cross_covariance, root
from fisherexp.problems.entropic_transport import plan

EYE = torch.eye(3, dtype=torch.float64)


def spd(seed):
    square = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return square @ square.T + 0.5 * EYE


def test_one_dimension_against_sinkhorn_on_a_grid():
    places = torch.linspace(-7, 9, 240, dtype=torch.float64)
    weights = [(-((places - mean) ** 2) / (2 * variance)).exp() for mean, variance in ((0.0, 1.0), (1.0, 2.25))]
    a, b = (w / w.sum() for w in weights)
    problem = instance(a + 1e-300, b + 1e-300, (places[:, None] - places).square() / 2, eta=1 / 0.8)
    state = zero_potentials(problem)
    for _ in range(60):
        state = sinkhorn_sweep(state, problem)
    found = plan(state.x, state.y, problem)
    covariance = (found * torch.outer(places - (a @ places), places - (b @ places))).sum()
    expected = cross_covariance(*(torch.tensor([[v]], dtype=torch.float64) for v in (1.0, 2.25)), epsilon=0.8)
    assert covariance.item() == pytest.approx(expected.item(), abs=1e-5)  # the grid ends at five deviations
    assert expected.item() == pytest.approx((math.sqrt(4 * 2.25 + 0.64) - 0.8) / 2)


def test_conditionals_give_back_the_second_marginal():
    source, target, epsilon = spd(1), spd(2), 0.6
    cross = cross_covariance(source, target, epsilon)
    _, covariance = conditional_moments(torch.zeros(1, 3, dtype=torch.float64), (EYE[0], source), (EYE[1], target), 0.6)
    gain = torch.linalg.solve(source, cross).mT
    torch.testing.assert_close(covariance[0] + gain @ source @ gain.mT, target)
    # The optimum: x and y have, given each other, the coupling exp(xᵀy/ε), so the off-diagonal precision is -1/ε.
    joint = torch.cat([torch.cat([source, cross], 1), torch.cat([cross.mT, target], 1)])
    torch.testing.assert_close(torch.linalg.inv(joint)[:3, 3:], -EYE / epsilon, rtol=0, atol=1e-10)


def test_large_epsilon_forgets_and_small_epsilon_maps():
    source, target = spd(1), spd(2)
    assert cross_covariance(source, target, 1e6).abs().max() < 1e-4
    cross = cross_covariance(source, target, 1e-9)
    squared = (source + target - 2 * cross).trace()  # E|x - y|² of the optimal map
    zero = torch.zeros(3, dtype=torch.float64)
    assert squared.item() == pytest.approx(bures_wasserstein((zero, source), (zero, target)).item(), abs=1e-7)


def test_bures_wasserstein_of_commuting_matrices():
    one, other = torch.tensor([4.0, 1.0]).diag().double(), torch.tensor([1.0, 9.0]).diag().double()
    means = torch.tensor([1.0, 2.0]).double(), torch.tensor([0.0, 2.0]).double()
    assert bures_wasserstein((means[0], one), (means[1], other)).item() == pytest.approx(1 + 1 + 4)
    torch.testing.assert_close(root(spd(3)) @ root(spd(3)), spd(3))


def test_energy_distance_is_scipys_but_for_pairs_of_a_point_with_itself():
    draws = torch.Generator().manual_seed(0)
    one, other = torch.randn(40, generator=draws).double(), 1 + 2 * torch.randn(30, generator=draws).double()
    pairs = sum((p[:, None] - p).abs().mean() * (1 / (1 - 1 / len(p)) - 1) for p in (one, other))
    expected = scipy_energy_distance(one.numpy(), other.numpy()) ** 2 - pairs.item()
    assert energy_distance(one[:, None], other[:, None]).item() == pytest.approx(expected)
    same = torch.stack([energy_distance(*torch.randn(2, 50, 2, generator=draws)) for _ in range(200)])
    assert abs(same.mean()) < 4 * same.std() / 200**0.5  # unbiased
