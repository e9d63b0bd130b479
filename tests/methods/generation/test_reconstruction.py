"""Optima of the two objectives on a Gaussian, the Jacobian's norm, and Metropolis' rule with a known score."""

import pytest
import torch

from fisherexp.methods.generation.reconstruction import (
    contractive_loss,
    denoising_loss,
    encoder_contractive_loss,
    metropolis,
    residual_score,
    score_matching_loss,
)

SPREAD, NOISE = 1.5, 0.8
OPTIMUM = SPREAD**2 / (SPREAD**2 + NOISE**2)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def standardized(count=200_000):
    """A sample of N(0, s²) with exactly that variance."""
    points = torch.randn(count, 1, dtype=torch.float64, generator=draw())
    points = points - points.mean()
    return points * SPREAD / points.square().mean().sqrt()


def slope_of_the_loss(loss, gain, points, **options):
    gain = torch.tensor(gain, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(lambda x: gain * x, points, NOISE, **options), gain)
    return float(slope)


def test_both_objectives_have_the_same_linear_optimum():
    """r(x) = x s²/(s² + σ²): exact for the contractive one, up to the noise's draw for the denoising one."""
    points = standardized()
    assert slope_of_the_loss(contractive_loss, OPTIMUM, points) == pytest.approx(0, abs=1e-9)
    assert slope_of_the_loss(denoising_loss, OPTIMUM, points, generator=draw(1)) == pytest.approx(0, abs=0.02)
    for loss, options in ((contractive_loss, {}), (denoising_loss, {"generator": draw(1)})):
        assert slope_of_the_loss(loss, OPTIMUM + 0.1, points, **options) > 0.5  # the control
        assert slope_of_the_loss(loss, OPTIMUM - 0.1, points, **options) < -0.5


def test_the_residual_is_the_score_of_the_smoothed_gaussian():
    points = standardized(5)
    found = residual_score(lambda x: OPTIMUM * x, points, NOISE)
    torch.testing.assert_close(found, -points / (SPREAD**2 + NOISE**2))


def test_the_contraction_is_of_the_whole_jacobian():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    points = torch.randn(4, 3, dtype=torch.float64, generator=draw())
    jacobians = torch.func.vmap(torch.func.jacrev(network))(points)
    expected = (network(points) - points).square().sum(1) + 0.09 * jacobians.square().sum((1, 2))
    assert contractive_loss(network, points, 0.3).item() == pytest.approx(expected.mean().item())
    contractive_loss(network, points, 0.3).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network[0].parameters())


def test_an_encoder_is_contracted_by_its_own_jacobian():
    torch.manual_seed(0)
    encode = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh()).double()
    decode = torch.nn.Linear(5, 3).double()
    points = torch.randn(4, 3, dtype=torch.float64, generator=draw())
    jacobians = torch.func.vmap(torch.func.jacrev(encode))(points)
    expected = (decode(encode(points)) - points).square().sum(1) + 0.09 * jacobians.square().sum((1, 2))
    found = encoder_contractive_loss(encode, decode, points, 0.3)
    assert found.item() == pytest.approx(expected.mean().item())
    given = torch.autograd.grad(found, list(encode.parameters()))
    wanted = torch.autograd.grad(expected.mean(), list(encode.parameters()))
    assert all(torch.allclose(one, other) for one, other in zip(given, wanted, strict=True))


def test_score_matching_is_least_at_the_score_of_the_smoothed_gaussian():
    points, true = standardized(), -1 / (SPREAD**2 + NOISE**2)
    assert slope_of_the_loss(score_matching_loss, true, points, generator=draw(1)) == pytest.approx(0, abs=0.03)
    assert slope_of_the_loss(score_matching_loss, true + 0.1, points, generator=draw(1)) > 0.2


def test_chains_reach_the_gaussian_of_a_linear_score():
    """For a linear score the trapezoid is exact, so the chain's law is N(1, 4) itself."""
    start = torch.full((4000, 1), 6.0)
    ends = metropolis(lambda x: (1 - x) / 4, start, steps=150, proposal=3.0, generator=draw())
    assert ends.mean().item() == pytest.approx(1, abs=0.12)
    assert ends.std().item() == pytest.approx(2, abs=0.12)
    assert torch.equal(metropolis(lambda x: x, start, 0, 1.0, draw()), start)
