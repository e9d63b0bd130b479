"""The mixture's density against torch's, its score against the gradient, its samples against its moments."""

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from fisherexp.data.gaussian_mixture import GaussianMixture

MIXTURE = GaussianMixture(
    torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64),
    torch.tensor([[0.0, 1.0], [2.0, -1.0], [-2.0, 0.0]]).double(),
    torch.tensor([[[1.0, 0.3], [0.3, 0.5]], [[0.2, 0.0], [0.0, 0.4]], [[1.0, -0.6], [-0.6, 1.0]]]).double(),
)


@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_density_is_torchs_and_the_score_its_gradient(noise):
    points = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    covariances = MIXTURE.covariances + noise**2 * torch.eye(2).double()
    theirs = MixtureSameFamily(Categorical(MIXTURE.weights), MultivariateNormal(MIXTURE.means, covariances))
    expected = theirs.log_prob(points)
    ours = MIXTURE.smoothed(noise)
    torch.testing.assert_close(ours.log_density(points), expected, rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(expected.sum(), points)
    torch.testing.assert_close(ours.score(points.detach()), gradient, rtol=0, atol=1e-12)


def test_samples_have_its_moments():
    drawn = MIXTURE.sample(40_000, torch.Generator().manual_seed(0))
    mean = MIXTURE.weights @ MIXTURE.means
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.03)
    away = MIXTURE.means - mean
    covariance = torch.einsum("k,kde->de", MIXTURE.weights, MIXTURE.covariances + away[:, :, None] * away[:, None])
    torch.testing.assert_close(drawn.T.cov(), covariance, rtol=0, atol=0.05)
