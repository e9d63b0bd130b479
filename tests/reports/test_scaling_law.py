"""Power laws: planted ones are found, intervals hold them, and what is too little is refused."""

import numpy as np
import pytest

from fisherexp.reports.plots import Request, scaling
from fisherexp.reports.power_law import PowerLaw, bootstrap, data_efficiency, fit_power_law, interval

SIZES = [1.0, 2.0, 3.0, 5.0, 8.0, 16.0]


@pytest.mark.parametrize("law", [PowerLaw(2.0, 0.7, 1.5), PowerLaw(0.3, 1.02, 3.43), PowerLaw(5.0, 0.1, 0.2)])
def test_a_planted_law_is_found(law):
    np.testing.assert_allclose(fit_power_law(SIZES, law(SIZES)), law, rtol=1e-6, atol=1e-6)
    known = fit_power_law(SIZES, law(SIZES), exponent=law.exponent)
    np.testing.assert_allclose(known, law, rtol=1e-9)
    other = fit_power_law(SIZES, law(SIZES), exponent=2 * law.exponent)
    assert abs(other.floor - law.floor) > 1e-3  # the control


def test_the_interval_of_seeds_holds_the_planted_floor_and_narrows_with_their_spread():
    law, noise = PowerLaw(0.4, 1.0, 2.0), np.random.default_rng(0).normal(size=(12, len(SIZES)))
    wide, narrow = (interval(bootstrap(SIZES, law(SIZES) + s * noise, 1.0), "floor") for s in (0.05, 0.005))
    assert wide[0] < law.floor < wide[1]
    assert wide[1] - wide[0] == pytest.approx(10 * (narrow[1] - narrow[0]), rel=0.01)


@pytest.mark.parametrize(("exponent", "sizes"), [(None, 3), (1.0, 2)])
def test_as_many_unknowns_as_sizes_are_refused(exponent, sizes):
    """Three points determine three numbers and test nothing; repeating a point adds none."""
    x = SIZES[:sizes]
    with pytest.raises(ValueError, match=f"{sizes} sizes are too few for a power law of {sizes} unknowns"):
        fit_power_law([*x, *x], [1.0] * 2 * sizes, exponent)


def test_data_efficiency_is_the_ratio_of_the_data_that_are_needed():
    baseline, better = PowerLaw(2.0, 0.5, 1.0), PowerLaw(1.0, 0.5, 1.0)
    assert data_efficiency(baseline, better, 9.0) == pytest.approx(4.0)
    assert data_efficiency(baseline, baseline, 9.0) == pytest.approx(1.0)
    assert data_efficiency(baseline, PowerLaw(1.0, 0.5, 0.5), 9.0) == float("inf")


def record(members: int, seed: int, loss: float) -> dict:
    names = {"data": "verse", "model": "char_gpt", "scenario": "none", "method": "ensemble"}
    config = {"method": {"members": members}, "scenario": {}, "seed": seed}
    metrics = {"after": {"test_nll": loss}}
    return {
        "names": names,
        "config": config,
        "semantic": config,
        "seed": seed,
        "metrics": metrics,
        "headings": {"test_nll": "test\nNLL"},
    }


def test_the_figure_says_where_members_without_end_would_be():
    law = PowerLaw(0.4, 1.0, 2.0)
    records = [record(k, seed, float(law(k)) + 0.01 * seed) for k in (1, 2, 3, 4) for seed in (0, 1)]
    figure = scaling.draw(records, Request(x="method.members"))
    (words,) = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "α = 1.00, E = 2.005" in words
    assert "[2.000, 2.010]" in words
    with pytest.raises(ValueError, match="--x: name the option"):
        scaling.draw(records, Request())


@pytest.mark.parametrize(
    ("losses", "words"), [((2.0, 1.5, 2.2, 2.5), "does not fall"), ((2.5, 2.2, 1.8, 1.7), "α = 1")]
)
def test_no_law_is_drawn_through_losses_that_do_not_fall(losses, words):
    records = [record(k, 0, loss) for k, loss in zip((1, 2, 3, 4), losses, strict=True)]
    axes = scaling.draw(records, Request(x="method.members")).axes[0]
    (text,) = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words in text
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "3", "4"]
