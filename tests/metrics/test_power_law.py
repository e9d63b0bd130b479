"""Exponents of power laws: drawn ones, SciPy's Pareto fit and distance, weightwatcher and powerlaw; what is refused."""

import math

import pytest
import torch
from scipy import stats

from fisherexp.metrics.fixed_aspect import eigenvalues
from fisherexp.metrics.power_law import fit, interval, survival

DRAWS = torch.Generator().manual_seed(0)
PARETO = 3 * torch.rand(2000, generator=DRAWS).double() ** (-1 / 1.5)  # α = 2.5 from 3 on
SPECTRA = [eigenvalues(torch.randn(*shape, generator=DRAWS)) for shape in [(128, 128), (100, 200), (64, 40)]]


@pytest.mark.parametrize("estimator", ["hill", "ks", "peak"])
def test_a_drawn_power_law_is_found(estimator):
    assert float(fit(PARETO, estimator).alpha) == pytest.approx(2.5, abs=0.1)
    normal = torch.randn(2000, generator=DRAWS).double().exp()  # the control: no power law
    assert float(fit(PARETO, estimator).distance) < 0.03 < float(fit(normal, "hill").distance)


@pytest.mark.parametrize("estimator", ["hill", "ks", "peak"])
@pytest.mark.parametrize("values", SPECTRA, ids=len)
def test_alpha_is_pareto_maximum_likelihood_and_the_distance_scipys(estimator, values):
    found = fit(values, estimator)
    tail = values[values >= found.x_min * (1 - 1e-12)].numpy()
    assert len(tail) == found.tail
    shape, _, _ = stats.pareto.fit(tail, floc=0, fscale=tail.min())
    assert float(found.alpha) == pytest.approx(1 + shape, rel=1e-9)
    distance = stats.kstest(tail, stats.pareto(shape, scale=tail.min()).cdf).statistic
    assert float(found.distance) == pytest.approx(distance, rel=1e-9)


def test_hill_takes_the_median_rule():
    values = torch.arange(1.0, 8).double()  # N = 7: x_min at place ⌊7/2⌋, four in the tail
    found = fit(values, "hill")
    assert (float(found.x_min), int(found.tail)) == (pytest.approx(4.0), 4)
    assert float(found.alpha) == pytest.approx(1 + 4 / sum(math.log(v / 4) for v in (4, 5, 6, 7)))
    assert int(fit(values, "hill", share=0.3).tail) == 3


def test_ks_is_the_nearest_of_all_tails_and_peak_of_some():
    (values,) = SPECTRA[2:]
    each = [fit(values, "hill", share=n / len(values)) for n in range(2, len(values) + 1)]
    nearest = min(each, key=lambda found: float(found.distance))
    assert float(fit(values, "ks").alpha) == pytest.approx(float(nearest.alpha))
    peak = fit(PARETO, "peak")
    assert 3 * 0.9 <= float(peak.x_min) <= 3 * 1.6


@pytest.mark.parametrize("estimator", ["ks", "peak"])
def test_starts_that_are_compared_in_parts_give_the_same_fit(estimator, monkeypatch):
    whole = fit(SPECTRA[0], estimator)
    monkeypatch.setattr("fisherexp.metrics.power_law.NUMBERS_AT_ONCE", 5 * len(SPECTRA[0]))
    for one, other in zip(fit(SPECTRA[0], estimator), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


@pytest.mark.parametrize("estimator", ["hill", "ks", "peak"])
def test_alpha_knows_no_scale_and_a_batch_is_its_rows(estimator):
    values = torch.stack([SPECTRA[0][-40:], SPECTRA[1][-40:], SPECTRA[2][-40:]])
    together = fit(values, estimator)
    for row, alpha in zip(values, together.alpha, strict=True):
        assert float(fit(row * 1e-5, estimator).alpha) == pytest.approx(float(alpha), rel=1e-9)


def test_equal_values_are_in_the_tail_together():
    values = torch.tensor([1.0, 2, 2, 2, 3, 5, 9]).double()
    found = fit(values, "ks")
    assert int(found.tail) == int((values >= found.x_min * (1 - 1e-12)).sum())


def test_intervals_cover_and_narrow():
    """Of 40 samples of 200, 90 % intervals hold the true exponent in at least three quarters."""
    covered = 0
    for sample in PARETO.view(10, 200).repeat(4, 1).roll(37):
        low, high = interval(sample, share=1.0, resamples=100, level=0.9, generator=DRAWS)
        covered += low <= 2.5 <= high
    assert covered >= 30
    narrow, wide = (interval(PARETO[:n], share=1.0, resamples=100, generator=DRAWS) for n in (1800, 100))
    assert narrow[1] - narrow[0] < 0.5 * (wide[1] - wide[0])


@pytest.mark.parametrize("share", [0.5, 0.13, 1.0])
def test_intervals_of_hill_are_quantiles_of_fits_to_the_resamples(share):
    """Those sort every resample; the interval counts how often each value is drawn."""
    values = torch.cat([SPECTRA[0], SPECTRA[0][-7:]])[torch.randperm(len(SPECTRA[0]) + 7)]  # ties, in no order
    found = interval(values, share=share, resamples=50, level=0.8, generator=torch.Generator().manual_seed(1))
    drawn = torch.randint(len(values), (50, len(values)), generator=torch.Generator().manual_seed(1))
    alphas = fit(values[drawn], "hill", share).alpha
    assert found == pytest.approx(alphas.quantile(torch.tensor([0.1, 0.9]).double()).tolist(), rel=1e-9)


def test_survival_is_the_share_that_is_not_smaller():
    rising, shares = survival(torch.tensor([3.0, 1, 2, 4]))
    assert rising.tolist() == [1, 2, 3, 4]
    assert shares.tolist() == [1, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("values", [torch.tensor([1.0, 0.0, 2.0]), torch.tensor([1.0])])
def test_what_has_no_power_law_is_refused(values):
    with pytest.raises(ValueError, match="two or more positive values"):
        fit(values)


@pytest.mark.parametrize("values", SPECTRA, ids=len)
def test_alpha_from_their_x_min_is_weightwatchers(values):
    """It compares distributions on one side of each step, so its distance is at most 1/n below ours."""
    peer = pytest.importorskip("weightwatcher.WW_powerlaw", reason="weightwatcher is not installed")
    theirs = peer.WWFit(values.numpy())
    tail = int((values >= theirs.xmin).sum())
    ours = fit(values, "hill", share=tail / len(values))
    assert float(ours.alpha) == pytest.approx(theirs.alpha, rel=1e-9)
    assert theirs.D - 1e-9 <= float(ours.distance) <= theirs.D + 1 / tail
    assert float(fit(values, "ks").distance) <= float(ours.distance) + 1e-9


def test_alpha_from_their_x_min_is_powerlaws():
    peer = pytest.importorskip("powerlaw", reason="powerlaw is not installed")
    theirs = peer.Fit(PARETO[:300].numpy(), verbose=False)
    ours = fit(PARETO[:300], "hill", share=int((PARETO[:300] >= theirs.xmin).sum()) / 300)
    assert float(ours.alpha) == pytest.approx(theirs.power_law.alpha, rel=1e-9)
