"""The generalized Gaussian: against SciPy's, and against its own moments."""

import pytest
import torch
from scipy.stats import gennorm

from fisherexp.methods.compression.generalized_gaussian import (
    RATIOS,
    SHAPES,
    draws,
    estimated_shape,
    moment_ratio,
    reshaped,
    scale_of,
)


def test_the_ratio_of_moments_falls_and_is_known_of_two_shapes():
    assert (RATIOS.diff() < 0).all()
    assert (len(SHAPES), SHAPES[0].item(), SHAPES[-1].item()) == (290, 0.10, 2.99)
    known = moment_ratio(torch.tensor([1.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(known, torch.tensor([2.0, torch.pi / 2], dtype=torch.float64))


@pytest.mark.parametrize("shape", [0.5, 1.0, 1.5, 2.0])
def test_draws_have_the_variance_and_the_shape(shape):
    torch.manual_seed(0)
    sample = draws((20_000,), shape, variance=4.0)
    assert sample.var().item() == pytest.approx(4.0, rel=0.08)
    assert sample.mean().abs() < 0.05
    assert estimated_shape([sample[:5000], sample[5000:]]) == pytest.approx(shape, abs=0.06)
    assert scale_of(shape, 4.0) == pytest.approx(2 / gennorm.std(shape))


def test_of_zeros_there_is_no_shape_and_scale_does_not_count():
    assert estimated_shape([torch.zeros(3)]) is None
    sample = draws((1000,), 0.7, 1.0)
    assert estimated_shape([sample]) == estimated_shape([1e-3 * sample])


def test_reshaped_values_keep_their_order_and_get_shape_and_variance():
    torch.manual_seed(0)
    values = torch.randn(100, 200)
    found = reshaped(values, 0.6, variance=1.0)
    assert torch.equal(found.flatten().argsort(stable=True), values.flatten().argsort(stable=True))
    assert estimated_shape([found]) == pytest.approx(0.6, abs=0.01)
    assert found.var().item() == pytest.approx(1.0, rel=0.02)  # the outermost quantiles are inside the tails
    middle = reshaped(torch.tensor([3.0, -1.0, -1.0]), 2.0, variance=1.0)  # a tie: in their order
    torch.testing.assert_close(middle, torch.tensor([0.9674, -0.9674, 0.0]), atol=1e-4, rtol=0)
