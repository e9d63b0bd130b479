"""Moments against their tensors, gradients against automatic ones, and what reweighting saves."""

import itertools

import pytest
import torch

from fisherexp.methods import memory
from fisherexp.methods.statistics.mixture_moments import (
    Mixture,
    inverse_variances,
    misfit,
    misfit_gradients,
    own_products,
    sample_products,
)
from fisherexp.methods.statistics.sgr_gmm import Dgmm, SgrGmm, flat, shaped
from fisherexp.problems.contaminated import ContaminatedGaussians

NOISE = 0.4
DRAW = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, generator=DRAW, dtype=torch.float64)


MIXTURE, SAMPLES = Mixture(normal(3), normal(3, 3), normal(3, 3, 2)), normal(5, 3)


def moment_tensors(mixture):
    """M_1 … M_4 of the mixture, by Isserlis' theorem over all pairings."""
    sigma = mixture.factors @ mixture.factors.mT + NOISE**2 * torch.eye(3).double()
    moments = []
    for order in range(1, 5):
        total = torch.zeros([3] * order, dtype=torch.float64)
        for places in itertools.product(range(3), repeat=order):
            for weight, mean, spread in zip(mixture.logits.softmax(0), mixture.means, sigma, strict=True):
                total[places] += weight * gaussian_moment(places, mean, spread)
        moments.append(total)
    return moments


def gaussian_moment(places, mean, spread):
    if not places:
        return 1.0
    first, rest = places[0], places[1:]
    found = mean[first] * gaussian_moment(rest, mean, spread)
    for n, other in enumerate(rest):
        found = found + spread[first, other] * gaussian_moment(rest[:n] + rest[n + 1 :], mean, spread)
    return found


def power(sample, order):
    found = sample.new_ones(())
    for _ in range(order):
        found = found[..., None] * sample
    return found


def test_products_are_those_of_the_moment_tensors():
    tensors = moment_tensors(MIXTURE)
    expected = [[(tensor * power(x, n)).sum() for n, tensor in enumerate(tensors, 1)] for x in SAMPLES]
    torch.testing.assert_close(sample_products(MIXTURE, SAMPLES, NOISE), torch.tensor(expected))
    squared = torch.stack([tensor.square().sum() for tensor in tensors])
    torch.testing.assert_close(own_products(MIXTURE, NOISE), squared)
    weights = normal(5).softmax(0)
    spread = [
        sum(w * (power(x, n) - tensor).square().sum() for w, x in zip(weights, SAMPLES, strict=True))
        for n, tensor in enumerate(tensors, 1)
    ]
    expected = torch.stack(spread).reciprocal()
    torch.testing.assert_close(inverse_variances(MIXTURE, SAMPLES, NOISE, weights, 4), expected / expected.sum())


@pytest.mark.parametrize("orders", [1, 4])
def test_gradients_of_samples_add_up_to_that_of_the_misfit(orders):
    weights, scale = normal(5).softmax(0), torch.arange(1, orders + 1).double()
    given = flat(MIXTURE).requires_grad_()
    whole = misfit(shaped(given, MIXTURE), SAMPLES, NOISE, scale, weights)
    (expected,) = torch.autograd.grad(whole, given)
    found = misfit_gradients(MIXTURE, SAMPLES, NOISE, scale)
    torch.testing.assert_close(weights @ found, expected)
    assert found.std(0).max() > 0.1  # control: they differ


def finished(method, problem, seed=0):
    method.begin(problem, seed)
    while not method.done:
        found = method.step()
    return found


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"orders": 5}, "orders=5: at most 4"),
        ({"rank": 9}, "rank=9: at most 4"),
        ({"components": 40}, "components=40 of"),
    ],
)
def test_what_cannot_be_fitted_is_refused(options, named):
    with pytest.raises(ValueError, match=rf"method\.{named}"):
        SgrGmm(**options).begin(ContaminatedGaussians(n=60, d=4).load(0), 0)


def test_memory_is_refused_before_it_is_asked_for(monkeypatch, caplog):
    assert memory.announce("kernel", 1000, 10, advice="less") == 80_000
    with pytest.raises(ValueError, match=r"kernel \(10000000 × 10000000\) takes .* GiB there are; less"):
        memory.announce("kernel", 10**7, 10**7, advice="less")
    monkeypatch.setattr(memory, "WORTH_SAYING", 8)
    with caplog.at_level("INFO"):
        memory.announce("kernel", 1000, 10, advice="less")
    assert "kernel (1000 × 10) takes 0.0 GiB" in caplog.text


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_far_outliers_do_not_move_the_fit_and_near_ones_do(seed):
    """Two components some 6 apart. Outliers at 24: the mean is within a third of that of the inliers, and without
    reweighting off by a component. At 8, a null: reweighting does not help either."""
    shape = {"n": 600, "d": 6, "components": 2, "rank": 2, "noise": 0.3}
    far = ContaminatedGaussians(**shape, distance=24.0).load(seed)
    robust, plain = finished(SgrGmm(), far, seed), finished(Dgmm(), far, seed)
    assert robust["outlier_mass"] < 0.002
    assert robust["center_error"] < 0.5
    assert plain["center_error"] > 5
    near = finished(SgrGmm(), ContaminatedGaussians(**shape, distance=8.0).load(seed), seed)
    assert near["outlier_mass"] > 0.01


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_one_component_is_fitted_through_near_outliers(seed):
    problem = ContaminatedGaussians(rank=3, noise=0.3).load(seed)
    options = {"components": 1, "rank": 3, "orders": 2, "steps": 8}
    robust, plain = finished(SgrGmm(**options), problem, seed), finished(Dgmm(**options), problem, seed)
    assert robust["mean_error"] < 1.3 * robust["oracle_error"]
    assert robust["covariance_error"] < 0.25 < 2 < plain["covariance_error"]
