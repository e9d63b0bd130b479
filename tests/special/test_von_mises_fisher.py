"""The distribution against SciPy where SciPy works, closed forms in three dimensions, and its moments."""

import math

import pytest
import torch
from scipy import stats

from fisherexp.special import iv_ratio
from fisherexp.special import von_mises_fisher as vmf

CASES = [(2, 0.3), (3, 20.0), (5, 1e4), (40, 7.0), (300, 500.0)]


def direction(p, seed=0):
    x = torch.randn(p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm()


def tensor(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(("p", "kappa"), CASES)
def test_density_and_entropy_are_scipys(p, kappa):
    mean = direction(p)
    points = vmf.sample(mean, kappa, 5, torch.Generator().manual_seed(1))
    known = stats.vonmises_fisher(mean.numpy(), kappa)
    expected = torch.from_numpy(known.logpdf(points.numpy()))
    torch.testing.assert_close(vmf.log_density(points, mean, tensor(kappa)), expected, rtol=1e-11, atol=1e-11)
    assert float(vmf.entropy(tensor(kappa), p)) == pytest.approx(known.entropy(), rel=1e-11, abs=1e-11)


def test_three_dimensions_have_closed_forms_at_any_concentration():
    kappa = torch.tensor([0.5, 20.0, 1e6, 1e30], dtype=torch.float64)
    peak = (kappa / (2 * math.pi)).log() - torch.log1p(-torch.exp(-2 * kappa))
    torch.testing.assert_close(vmf.log_peak(kappa, 3), peak, rtol=1e-14, atol=1e-14)
    gap = 1 - (1 / kappa.tanh() - 1 / kappa)
    torch.testing.assert_close(vmf.mean_gap(kappa, 3)[:2], gap[:2], rtol=1e-12, atol=0)
    assert float(vmf.entropy(kappa, 3)[-1]) == pytest.approx(1 + math.log(2 * math.pi) - 30 * math.log(10), rel=1e-14)


@pytest.mark.parametrize("p", [2, 3, 1000])
def test_no_concentration_is_the_uniform_distribution(p):
    area = math.log(2) + p / 2 * math.log(math.pi) - math.lgamma(p / 2)
    assert float(vmf.entropy(tensor(0.0), p)) == pytest.approx(area, rel=1e-14)
    assert float(vmf.entropy(tensor(1e-6), p)) == pytest.approx(area, rel=1e-11)


def test_divergence_is_zero_of_itself_and_the_mean_log_ratio_of_others():
    mean, other = direction(6), direction(6, seed=3)
    first, second = tensor(9.0), tensor(4.0)
    assert float(vmf.kl_divergence(mean, first, mean, first)) == pytest.approx(0, abs=1e-14)
    points = vmf.sample(mean, 9.0, 40_000, torch.Generator().manual_seed(0))
    ratio = vmf.log_density(points, mean, first) - vmf.log_density(points, other, second)
    four_errors = 4 * float(ratio.std()) / 200
    assert float(vmf.kl_divergence(mean, first, other, second)) == pytest.approx(float(ratio.mean()), abs=four_errors)


@pytest.mark.parametrize(("p", "kappa"), [(2, 0.5), (3, 1e5), (50, 30.0), (2048, 900.0)])
def test_samples_are_unit_vectors_with_the_right_moments(p, kappa):
    mean = direction(p)
    points = vmf.sample(mean, kappa, 2000, torch.Generator().manual_seed(2))
    torch.testing.assert_close(points.norm(dim=1), torch.ones(2000, dtype=torch.float64), rtol=1e-13, atol=0)
    gaps = (points - mean).square().sum(1) / 2
    assert float(gaps.mean()) == pytest.approx(
        float(vmf.mean_gap(tensor(kappa), p)), abs=4 * float(gaps.std()) / 2000**0.5
    )
    across = points - (points @ mean)[:, None] * mean
    assert float(across.mean(0).norm() / across.norm(dim=1).mean()) < 2 / 2000**0.5 * 1.5


@pytest.mark.parametrize("p", [2, 64, 2048, 32768])
@pytest.mark.parametrize("kappa", [0.01, 30.0, 1e4, 1e9])
def test_newtons_method_finds_a_planted_concentration(p, kappa):
    """From exact moments. The closed form alone does not: the control."""
    gap = vmf.mean_gap(tensor(kappa), p)
    start = found = vmf.closed_form(gap, p)
    for _ in range(6):
        found = vmf.newton_step(found, gap, p)
    # 1 - A carries 1e-16, and kappa = p A for small ones
    assert float(found) == pytest.approx(kappa, rel=1e-12 + 1e-15 * p / kappa)
    if (p, kappa) in ((2, 30.0), (64, 30.0)):
        assert abs(float(start) / kappa - 1) > 1e-5


def test_resultant_of_given_vectors():
    x = torch.tensor([[0.6, 0.8], [0.6, -0.8], [1.0, 0.0]], dtype=torch.float64)
    mean, gap = vmf.resultant(x)
    assert mean.tolist() == pytest.approx([1, 0])
    assert float(gap) == pytest.approx(1 - 2.2 / 3)
    assert float(vmf.mean_gap(tensor(3.0), 4)) == pytest.approx(1 - float(iv_ratio(1, 3.0)))
    with pytest.raises(ValueError, match="no mean direction"):
        vmf.resultant(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
