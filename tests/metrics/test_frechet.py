"""Fréchet distance against scipy's matrix square root and closed forms."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from fisherexp.metrics.frechet import frechet_distance, frechet_of_gaussians
from fisherexp.seeds import generator


def features(name, count, size, scale=1.0, shift=0.0):
    mixing = torch.randn(size, size, dtype=torch.float64, generator=generator(name, "mixing"))
    drawn = torch.randn(count, size, dtype=torch.float64, generator=generator(name))
    return scale * drawn @ mixing + shift


def test_it_is_the_formula_with_scipys_root():
    one, other = features("one", 60, 5), features("other", 80, 5, scale=0.7, shift=1.5)
    c, d = np.cov(one.numpy().T), np.cov(other.numpy().T)
    expected = (one.mean(0) - other.mean(0)).square().sum().item() + np.trace(c + d - 2 * sqrtm(c @ d).real)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(one.float(), other.float()) == pytest.approx(expected, rel=1e-4)


def test_closed_forms():
    one = features("one", 50, 4)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, one + 2) == pytest.approx(4 * 4)  # moved by 2 in four coordinates
    spread = one.mT.cov().trace().item()
    assert frechet_distance(one - one.mean(0), 3 * (one - one.mean(0))) == pytest.approx((3 - 1) ** 2 * spread)
    line = torch.tensor([[1.0], [3.0], [8.0]], dtype=torch.float64)
    wide = torch.tensor([[0.0], [10.0]], dtype=torch.float64)
    assert frechet_distance(line, wide) == pytest.approx((4 - 5) ** 2 + (13**0.5 - 50**0.5) ** 2)


def test_covariances_that_are_singular_or_commute():
    zero, point = torch.zeros(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    a, b = (torch.diag(torch.tensor(v, dtype=torch.float64)) for v in ([4.0, 1.0, 0.0], [1.0, 9.0, 0.0]))
    assert frechet_of_gaussians(zero, a, zero, b) == pytest.approx((2 - 1) ** 2 + (1 - 3) ** 2)
    assert frechet_of_gaussians(zero, a, zero, point) == pytest.approx(5)
    few = features("few", 3, 10)  # a covariance of rank 2
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)


def test_what_has_no_distance_is_refused():
    with pytest.raises(ValueError, match=r"got \(5, 3\) and \(5, 2\)"):
        frechet_distance(torch.zeros(5, 3), torch.zeros(5, 2))
    with pytest.raises(ValueError, match="at least two samples"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3))
