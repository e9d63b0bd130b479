"""Contaminated samples: what was drawn, and how an estimate is measured."""

import pytest
import torch

from fisherexp.data.errors import DataError
from fisherexp.problems.contaminated import ContaminatedGaussians, Estimate

PROBLEM = ContaminatedGaussians(n=4000, d=5, components=2, rank=2, noise=0.5, contamination=0.2).load(seed=0)


def truth(drawn):
    return Estimate(drawn.weights, drawn.means, drawn.covariances)


def test_samples_are_of_the_gaussians_they_say():
    drawn = PROBLEM.drawn
    assert (drawn.component == -1).sum() == 800
    for component in range(2):
        own = drawn.samples[drawn.component == component]
        assert (own.mean(0) - drawn.means[component]).norm() < 0.1
        assert (torch.cov(own.T) - drawn.covariances[component]).norm() < 0.2
    assert torch.linalg.eigvalsh(drawn.covariances[0])[:3].tolist() == pytest.approx([0.25] * 3)


def test_the_truth_has_no_error_in_any_order_of_its_components():
    estimate = truth(PROBLEM.drawn)
    swapped = Estimate(*(part.flip(0) for part in estimate[:3]))
    for answer in (estimate, swapped):
        found = PROBLEM.evaluate(answer)
        assert max(found[name] for name in ("mean_error", "center_error", "covariance_error")) < 1e-12
        assert found["oracle_error"] > 0.001
    moved = PROBLEM.evaluate(estimate._replace(means=estimate.means + torch.tensor([3.0, 4.0, 0, 0, 0])))
    assert (moved["mean_error"], moved["center_error"]) == (pytest.approx(5), pytest.approx(5))
    weighed = PROBLEM.evaluate(estimate._replace(sample_weights=torch.full((4000,), 1 / 4000, dtype=torch.float64)))
    assert weighed["outlier_mass"] == pytest.approx(0.2)
    assert "center_error" not in PROBLEM.evaluate(Estimate(torch.ones(1).double(), estimate.means[:1]))


@pytest.mark.parametrize(("options", "named"), [({"rank": 11}, "rank=11"), ({"n": 1}, "n=1")])
def test_what_cannot_be_drawn_is_refused(options, named):
    with pytest.raises(DataError, match=rf"data\.{named}"):
        ContaminatedGaussians(**options).load(0)
