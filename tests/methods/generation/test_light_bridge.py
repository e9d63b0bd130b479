"""The closed forms of the mixture: quadrature, gradients, path simulation, and the bridge between Gaussians."""

import math

import pytest
import torch

from fisherexp.methods.generation.light_bridge import (
    Mixture,
    bridge_loss,
    bridge_point,
    conditional,
    conditional_moments,
    drift,
    log_normalizer,
    log_potential,
    plan_sample,
    trajectories,
)
from fisherexp.metrics.gaussian_bridge import bures_wasserstein
from fisherexp.metrics.gaussian_bridge import conditional_moments as true_moments


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn_mixture(components, dimension, full=False, seed=0):
    draws = draw(seed)
    normal = [torch.randn(components, dimension, dtype=torch.float64, generator=draws) for _ in range(2)]
    axes = torch.randn(components, dimension, dimension, dtype=torch.float64, generator=draws)
    axes = torch.linalg.qr(axes).Q if full else None
    weights = torch.randn(components, dtype=torch.float64, generator=draws)
    return Mixture(weights, normal[0], (0.5 * normal[1]).exp(), axes)


@pytest.mark.parametrize("full", [False, True])
def test_the_normalizer_is_the_integral(full):
    """∫ exp(xy/ε) v(y) dy by the trapezoid rule, in one and two dimensions."""
    epsilon = 0.7
    for dimension in (1, 2):
        mixture = drawn_mixture(3, dimension, full)
        line = torch.linspace(-14, 14, 561, dtype=torch.float64)
        grid = torch.cartesian_prod(*[line] * dimension).reshape(-1, dimension)
        x = torch.tensor([[-0.4], [0.3]], dtype=torch.float64).expand(2, dimension).contiguous()
        values = (grid @ x.T / epsilon + log_potential(mixture, grid, epsilon)[:, None]).exp()
        integral = values.sum(0) * (line[1] - line[0]) ** dimension
        torch.testing.assert_close(integral.log(), log_normalizer(mixture, x, epsilon), rtol=0, atol=1e-9)


@pytest.mark.parametrize("full", [False, True])
def test_the_plan_is_the_tilted_potential(full):
    """Density of the conditional mixture at some y against exp(xᵀy/ε) v(y) / c(x)."""
    mixture, epsilon = drawn_mixture(4, 2, full), 0.5
    x, y = torch.randn(2, 5, 2, dtype=torch.float64, generator=draw(1))
    expected = (x * y).sum(1) / epsilon + log_potential(mixture, y, epsilon) - log_normalizer(mixture, x, epsilon)
    found = conditional(mixture, x, epsilon)
    turned = mixture.turned(y[:, None] - found.means)
    logs = -(turned.square() / found.variances + (2 * math.pi * found.variances).log()).sum(-1) / 2
    torch.testing.assert_close((found.log_weights + logs).logsumexp(1), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.variances, epsilon * mixture.variances)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("time", [0.0, 0.3, 0.9])
def test_the_drift_is_the_gradient_of_the_log_potential(full, time):
    """g = ε ∇ log h with h(x, t) = ∫ N(y | x, (1-t) ε) exp(|y|²/2ε) v(y) dy, by autograd of its closed form."""
    mixture, epsilon = drawn_mixture(4, 2, full), 0.5
    axes = torch.eye(2, dtype=torch.float64).expand(4, 2, 2) if mixture.axes is None else mixture.axes
    inverse = (axes / mixture.variances[:, None]) @ axes.mT
    x = torch.randn(5, 2, dtype=torch.float64, generator=draw(1)).requires_grad_()
    matrix = time / (epsilon * (1 - time)) * torch.eye(2, dtype=torch.float64) + inverse / epsilon
    pull = x[:, None] / (epsilon * (1 - time)) + torch.einsum("kde,ke->kd", inverse, mixture.means) / epsilon
    logs = mixture.log_weights - (mixture.variances.log().sum(1) + torch.logdet(matrix)) / 2
    logs = logs - torch.einsum("kd,kde,ke->k", mixture.means, inverse, mixture.means) / (2 * epsilon)
    logs = logs + torch.einsum("nkd,kde,nke->nk", pull, torch.linalg.inv(matrix), pull) / 2
    log_h = logs.logsumexp(1) - x.square().sum(1) / (2 * epsilon * (1 - time))
    (gradient,) = torch.autograd.grad(log_h.sum(), x)
    torch.testing.assert_close(drift(mixture, x.detach(), epsilon, time), epsilon * gradient, rtol=1e-9, atol=1e-9)


def test_the_first_drift_points_to_the_plans_mean():
    mixture, x = drawn_mixture(5, 3), torch.randn(6, 3, dtype=torch.float64, generator=draw(1))
    mean, _ = conditional_moments(mixture, x, 0.4)
    torch.testing.assert_close(drift(mixture, x, 0.4, 0.0), mean - x, rtol=0, atol=1e-13)


@pytest.mark.parametrize("full", [False, True])
def test_samples_and_simulated_paths_have_the_plans_moments(full):
    mixture, epsilon, count = drawn_mixture(3, 2, full), 0.5, 20_000
    x = torch.tensor([[0.2, -0.3]], dtype=torch.float64)
    mean, covariance = (part[0] for part in conditional_moments(mixture, x, epsilon))
    many = x.expand(count, 2)
    ends = trajectories(mixture, many[:5000], epsilon, 60, draw(2))[-1]
    for points, slack in ((plan_sample(mixture, many, epsilon, draw(1)), 0.03), (ends, 0.06)):
        torch.testing.assert_close(points.mean(0), mean, rtol=0, atol=slack * 2)
        torch.testing.assert_close(points.T.cov(), covariance, rtol=0, atol=slack * float(covariance.trace()))
    other = drawn_mixture(3, 2, full, seed=5)  # control: another mixture's moments are far
    assert (conditional_moments(other, x, epsilon)[0][0] - mean).abs().max() > 0.3


def test_the_loss_ignores_a_common_factor_of_the_weights():
    mixture, (x, y) = drawn_mixture(4, 2), torch.randn(2, 30, 2, dtype=torch.float64, generator=draw(1))
    scaled = mixture._replace(log_weights=mixture.log_weights + 3)
    assert bridge_loss(scaled, x, y, 0.5).item() == pytest.approx(bridge_loss(mixture, x, y, 0.5).item(), abs=1e-12)
    bent = mixture._replace(log_weights=2 * mixture.log_weights)
    assert abs(bridge_loss(bent, x, y, 0.5) - bridge_loss(mixture, x, y, 0.5)) > 1e-3


def test_the_pinned_bridge_has_brownian_variance():
    x, y = torch.zeros(40_000, 1), torch.ones(40_000, 1)
    middle = bridge_point(x, y, 0.5, 0.25, draw())
    assert middle.mean().item() == pytest.approx(0.25, abs=0.01)
    assert middle.var().item() == pytest.approx(0.5 * 0.25 * 0.75, rel=0.05)
    assert torch.equal(bridge_point(x, y, 0.5, 1.0, draw()), y)


def test_one_component_minimizes_at_the_gaussian_bridge():
    """N(0, 1) to N(2, 4): the minimizer of the exact expected loss, S = √… and r, has the closed form's moments."""
    epsilon, spread, shift = 1.0, 2.0, 2.0
    normal = torch.zeros(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64)
    target = torch.tensor([shift], dtype=torch.float64), torch.tensor([[spread**2]], dtype=torch.float64)
    gain = (math.sqrt(4 * spread**2 + epsilon**2) - epsilon) / 2  # the dossier's 1.5616 is this at σ₁ = 2
    assert gain == pytest.approx(1.5616, abs=1e-4)
    mixture = Mixture(
        torch.zeros(1, dtype=torch.float64),
        torch.tensor([[shift]], dtype=torch.float64),
        torch.tensor([[gain]], dtype=torch.float64),
    )
    x = torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None]
    found = conditional_moments(mixture, x, epsilon)
    expected = true_moments(x, normal, target, epsilon)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-12)

    def expected_loss(s, r):
        """E log c(x) - E log v(y) of one component, in closed form."""
        return (s / (2 * epsilon)) + ((spread**2 + (shift - r) ** 2) / (epsilon * s) + math.log(s)) / 2

    best = expected_loss(gain, shift)
    assert all(expected_loss(gain * f, shift + d) > best for f, d in ((1.02, 0), (0.98, 0), (1, 0.05), (1, -0.05)))
    wrong = true_moments(x, normal, target, 2 * epsilon)
    assert bures_wasserstein(found, wrong).mean() > 0.01  # control: ε matters
