"""The game's pieces by hand and by their defining properties; the authors' experiment at its full size."""

import pytest
import torch
from scipy.optimize import minimize

from fisherexp.methods.statistics.robust_mean import RobustMean, plain_estimate
from fisherexp.methods.statistics.spectral_reweighting import (
    EXACT,
    capped,
    density,
    geometric_median,
    losses,
    played,
    reweighted,
    squared_diameter,
    trimmed_mean,
)
from fisherexp.problems.contaminated import ContaminatedGaussians


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("cap", [1 / 8, 0.15, 0.3, 1.0])
def test_projection_is_the_nearest_in_relative_entropy(cap):
    weights = draw(8).exp()
    found = capped(weights, cap)
    assert found.sum().item() == pytest.approx(1)
    assert found.max() <= cap + 1e-15
    free = found < cap - 1e-12  # Karush, Kuhn, Tucker: one factor below the cap, a smaller one at it
    if free.any():
        ratios = found / weights
        assert ratios[free].max().item() == pytest.approx(ratios[free].min().item())
        assert (ratios[~free] <= ratios[free].max() + 1e-12).all()
    objective = lambda w: (w * torch.log(torch.tensor(w) / weights).numpy()).sum()  # noqa: E731
    constraint = {"type": "eq", "fun": lambda w: w.sum() - 1}
    best = minimize(objective, found.numpy() * 0 + 1 / 8, bounds=[(1e-9, cap)] * 8, constraints=constraint)
    assert objective(found.numpy()) <= best.fun + 1e-6


def test_a_cap_that_nothing_meets_is_refused():
    with pytest.raises(ValueError, match=r"cap=0\.1"):
        capped(torch.ones(8).double(), 0.1)


def test_density_has_trace_one_however_large_the_sums():
    sums = draw(4, 6)
    sums = sums.T @ sums
    expected = torch.linalg.matrix_exp(sums)
    torch.testing.assert_close(density(sums), expected / expected.trace())
    assert density(1e6 * sums).trace().item() == pytest.approx(1)


def test_losses_of_the_game_are_between_nothing_and_the_squared_diameter():
    offsets = draw(20, 4)
    vectors = torch.linalg.eigh(offsets.T @ offsets).eigenvectors
    for sums in (offsets.T @ offsets, 1e6 * offsets.T @ offsets, torch.zeros(4, 4).double()):
        found = losses(offsets, density(sums))
        assert found.min() >= 0
        assert found.max() <= offsets.square().sum(1).max() <= squared_diameter(torch.cat([offsets, -offsets]))
    along = (offsets @ vectors[:, -1]).square()  # of far larger sums only the direction that varies most is left
    torch.testing.assert_close(losses(offsets, density(1e6 * offsets.T @ offsets)), along)
    assert density(draw(1, 1)).item() == 1  # of one number only weights move


def test_mean_weights_begin_with_the_first_and_end_before_the_last():
    offsets, weights = draw(6, 2), torch.full((6,), 1 / 6, dtype=torch.float64)
    scale = squared_diameter(offsets)
    assert torch.equal(played(offsets, weights, 0.3, 1, scale), weights)
    assert not torch.allclose(played(offsets, weights, 0.3, 2, scale), weights, atol=1e-6)


def test_geometric_median_is_stationary_and_diameter_is_exact():
    points = draw(30, 3)
    median = geometric_median(points)
    pull = torch.nn.functional.normalize(points - median, dim=1).sum(0)
    assert pull.norm() < 1e-6
    assert torch.equal(geometric_median(torch.stack([points[0]] * 3 + [points[1]])), points[0])  # one of the samples
    assert squared_diameter(points) == pytest.approx(torch.cdist(points, points).max().item() ** 2)
    many = draw(EXACT + 1, 2)
    assert torch.cdist(many[:500], many).max() ** 2 <= squared_diameter(many) <= 4 * torch.cdist(many, many).max() ** 2


def test_without_contamination_weights_are_uniform_and_the_center_is_the_mean():
    points = draw(40, 3)
    found = reweighted(points, 0.0)
    torch.testing.assert_close(found.weights, torch.full((40,), 1 / 40, dtype=torch.float64))
    torch.testing.assert_close(found.center, points.mean(0))
    assert found.rounds == 6  # the fifth and the sixth are the first two that count as still


def test_turning_and_reordering_points_turns_and_reorders_the_answer():
    points = draw(50, 4)
    points[:5] += 10
    found = reweighted(points, 0.1, rounds=3)
    turn, order = torch.linalg.qr(draw(4, 4, seed=1)).Q, torch.randperm(50)
    turned = reweighted(points[order] @ turn, 0.1, rounds=3)
    torch.testing.assert_close(turned.center, found.center @ turn)
    torch.testing.assert_close(turned.weights, found.weights[order])
    assert found.weights[:5].sum() < 0.01
    assert reweighted(draw(50, 4), 0.1, rounds=3).weights[:5].sum() > 0.05  # control: they are as the others


def test_plain_estimators_by_hand():
    points = torch.tensor([[0.0, 9.0], [1.0, 2.0], [2.0, 1.0], [90.0, 0.0]]).double()
    assert plain_estimate(points, "mean", 0.25).tolist() == [23.25, 3.0]
    assert plain_estimate(points, "coordinate_median", 0.25).tolist() == [1.5, 1.5]
    assert plain_estimate(points, "trimmed_mean", 0.25).tolist() == trimmed_mean(points, 0.25).tolist() == [1.5, 1.5]
    with pytest.raises(ValueError, match=r"estimator=middle"):
        plain_estimate(points, "middle", 0.1)


def error(estimator, seed, contamination=0.1, assumed=None, **options):
    problem = ContaminatedGaussians(contamination=contamination).load(seed)
    method = RobustMean(estimator, contamination if assumed is None else assumed, **options)
    method.begin(problem, seed)
    while not method.done:
        found = method.step()
    return found


@pytest.mark.proof
@pytest.mark.parametrize("contamination", [0.1, 0.3])
def test_reweighting_is_as_good_as_knowing_the_outliers(contamination):
    """Five seeds, as the authors' eight rounds of a hundred moves: within 2 % of the inliers' mean, on average."""
    means = {}
    for estimator in ("sgr", "mean", "coordinate_median", "geometric_median"):
        found = [error(estimator, seed, contamination, rounds=8, inner_steps=100) for seed in range(5)]
        means[estimator] = sum(one["mean_error"] for one in found) / 5
    oracle = sum(one["oracle_error"] for one in found) / 5
    assert means["sgr"] <= 1.02 * oracle
    assert means["coordinate_median"] > 1.1 * oracle
    assert means["mean"] > means["geometric_median"] > 2 * oracle


@pytest.mark.proof
def test_too_small_a_share_is_costly_and_too_large_a_one_is_not():
    found = {share: sum(error("sgr", seed, assumed=share)["mean_error"] for seed in range(3)) for share in (0.05, 0.2)}
    oracle = sum(error("mean", seed)["oracle_error"] for seed in range(3))
    assert found[0.05] > 2 * oracle
    assert found[0.2] < 1.2 * oracle
