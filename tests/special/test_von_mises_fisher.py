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


def test_log_densities_of_scipys_own_tests():
    """Computed there with mpmath, to 50 digits."""
    table = [
        *((3, 1.0, 1e-4, -2.5309242486359573), (3, 0.0, 1e-4, -2.5310242486359575)),
        *((3, 1.0, 100.0, 2.767293119578746), (3, 0.0, 100.0, -97.23270688042125)),
        *((3, 0.98**0.5, 2000.0, -14.337987284534103), (3, 1.0, 2000.0, 5.763025393132737)),
        *((5, 1.0, 2000.0, 11.526550911307156), (5, 0.98**0.5, 2000.0, -8.574461766359684)),
        (5, 0.8**0.5, 2000.0, -199.61906708886113),
    ]
    for p, cosine, kappa, expected in table:
        x, mean = torch.zeros(2, p, dtype=torch.float64)
        x[0], mean[0], mean[1] = 1.0, cosine, (1 - cosine**2) ** 0.5
        assert float(vmf.log_density(x, mean, tensor(kappa))) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("p", "kappa", "expected"),
    [
        *((3, 1e-4, 2.531024245302624), (3, 100.0, -1.7672931195787458)),
        *((5, 5000.0, -11.359032310024453), (8, 1.0, 3.4189526482545527)),
    ],
)
def test_entropies_of_scipys_own_tests(p, kappa, expected):
    assert float(vmf.entropy(tensor(kappa), p)) == pytest.approx(expected, rel=2e-14)


@pytest.mark.parametrize("p", [2, 3, 6])
@pytest.mark.parametrize(
    ("kappa", "of_mean", "of_kappa"),
    [(1.0, 5e-2, 5e-2), (10.0, 1e-2, 1e-2), (100.0, 5e-3, 2e-2), (1000.0, 1e-3, 2e-2)],
)
def test_fits_are_as_near_as_scipys_own_tests_ask(p, kappa, of_mean, of_kappa):
    """To 10,000 samples around (1, …, 1); within four standard errors where those are more than SciPy's bounds, which
    were set for one seed."""
    mean = torch.full((p,), p**-0.5, dtype=torch.float64)
    points = vmf.sample(mean, kappa, 10_000, torch.Generator().manual_seed(0))
    found, gap = vmf.resultant(points)
    turn = 4 * ((p - 1) / (10_000 * kappa * (1 - float(gap)))) ** 0.5
    assert float((found - mean).norm()) < max(of_mean, turn)
    change = 4 / (10_000 * slope(kappa, p)) ** 0.5
    fitted = float(vmf.maximum_likelihood(gap, p))
    assert fitted == pytest.approx(kappa, rel=max(of_kappa, change / kappa))
    assert float(vmf.closed_form(gap, p)) != pytest.approx(fitted, rel=1e-7)  # the control


def slope(kappa, p):
    """A_p', by differences."""
    return float(vmf.mean_gap(tensor(kappa * 0.999), p) - vmf.mean_gap(tensor(kappa * 1.001), p)) / (0.002 * kappa)


def test_in_two_dimensions_it_is_von_mises():
    angles = torch.linspace(-3, 3, 10, dtype=torch.float64)
    points, mean = torch.stack([angles.cos(), angles.sin()], 1), torch.tensor([0.0, 1.0], dtype=torch.float64)
    known = stats.vonmises(loc=math.pi / 2, kappa=20)
    expected = torch.from_numpy(known.logpdf(angles.numpy()))
    torch.testing.assert_close(vmf.log_density(points, mean, tensor(20.0)), expected, rtol=1e-13, atol=1e-13)
    assert float(vmf.entropy(tensor(20.0), 2)) == pytest.approx(float(known.entropy()), rel=1e-12)


@pytest.mark.parametrize("kappa", [1e15, 1e20, 1e30])
def test_samples_of_extreme_concentration_are_the_mean(kappa):
    mean = direction(5)
    points = vmf.sample(mean, kappa, 10, torch.Generator().manual_seed(0))
    torch.testing.assert_close(points, mean.expand(10, 5), rtol=0, atol=1e-6)


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


@pytest.mark.parametrize("p", [2, 3, 64, 2048, 32768])
def test_six_steps_are_enough_for_any_resultant_length_and_kappa_stays_positive(p):
    gap = 1 - torch.tensor([0.01, 0.1, 0.5, 0.9, 0.99, 0.999], dtype=torch.float64)
    kappas = [vmf.closed_form(gap, p)]
    for _ in range(6):
        kappas.append(vmf.newton_step(kappas[-1], gap, p))
    assert (torch.stack(kappas) > 0).all()
    torch.testing.assert_close(vmf.mean_gap(kappas[-1], p), gap, rtol=1e-12, atol=0)
    if p < 100:
        assert ((vmf.mean_gap(kappas[0], p) / gap - 1).abs() > 1e-6).any()  # the control: the start alone


def test_resultant_of_given_vectors():
    x = torch.tensor([[0.6, 0.8], [0.6, -0.8], [1.0, 0.0]], dtype=torch.float64)
    mean, gap = vmf.resultant(x)
    assert mean.tolist() == pytest.approx([1, 0])
    assert float(gap) == pytest.approx(1 - 2.2 / 3)
    assert float(vmf.mean_gap(tensor(3.0), 4)) == pytest.approx(1 - float(iv_ratio(1, 3.0)))
    with pytest.raises(ValueError, match="no mean direction"):
        vmf.resultant(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
