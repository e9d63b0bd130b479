"""Gradients of samples against automatic ones, the instance by its definition, and what aggregating robustly saves."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from fisherexp.data.errors import DataError
from fisherexp.methods.statistics.robust_classification import RobustClassification, logistic_gradients
from fisherexp.problems.contaminated_classes import ContaminatedDigits, LinearClassifier

PROBLEM = ContaminatedDigits(n=60, contamination=0.1).load(0)


def test_gradients_of_samples_are_those_of_the_cross_entropy():
    draw = torch.Generator().manual_seed(0)
    weights, inputs = (torch.randn(n, 3, generator=draw, dtype=torch.float64) for n in (4, 5))
    labels = torch.tensor([0, 3, 1, 1, 2])
    given = weights.clone().requires_grad_()
    found = logistic_gradients(weights, inputs, labels)
    for row, x, y in zip(found, inputs, labels, strict=True):
        (expected,) = torch.autograd.grad(cross_entropy((given @ x)[None], y[None]), given)
        torch.testing.assert_close(row.view_as(expected), expected)


def test_outliers_are_far_and_labeled_as_the_next_class():
    clean = ContaminatedDigits(n=60, contamination=0.0).load(0).instance
    mixed = PROBLEM.instance
    outlier = mixed["outlier"]
    assert outlier.sum() == 6
    torch.testing.assert_close(mixed["inputs"][~outlier], clean["inputs"][~outlier])
    torch.testing.assert_close(mixed["inputs"][outlier][:, :-1], 5 * clean["inputs"][outlier][:, :-1])
    assert torch.equal(mixed["labels"][outlier], (clean["labels"][outlier] + 1) % 4)
    assert (mixed["test_inputs"][:, -1] == 1).all()
    # A map without weights says zero.
    none = PROBLEM.evaluate(LinearClassifier(torch.zeros(4, 7).double(), torch.ones(60).double() / 60))
    assert none["test_accuracy"] == pytest.approx(100 * float((mixed["test_labels"] == 0).double().mean()))
    assert none["outlier_mass"] == pytest.approx(0.1)
    for options, named in (({"n": 4000}, "n=4000: at most"), ({"digits": 11}, "digits=11: at most 10")):
        with pytest.raises(DataError, match=rf"data\.{named}"):
            ContaminatedDigits(**options).load(0)


def finished(problem, estimator="sgr", seed=0, **options):
    method = RobustClassification(estimator, **options)
    method.begin(problem, seed)
    while not method.done:
        found = method.step()
    return found


def test_without_contamination_the_mean_is_followed():
    found = {name: finished(PROBLEM, name, contamination=0.0, steps=3, inner_steps=5) for name in ("sgr", "mean")}
    assert found["sgr"]["test_accuracy"] == found["mean"]["test_accuracy"]
    many = ContaminatedDigits(digits=10, dimension=60).load(0)
    with pytest.raises(ValueError, match=r"10 classes in data\.dimension=60 have 610 parameters; up to 400"):
        finished(many)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_reweighted_gradients_keep_the_accuracy_that_outliers_cost_the_mean(seed):
    """A fifth of outliers: within a point of training without any. The mean loses forty, medians and the trimmed mean
    two to ten."""
    problem, clean = (ContaminatedDigits(contamination=share).load(seed) for share in (0.2, 0.0))
    best = finished(clean, "mean", seed)["test_accuracy"]
    robust = finished(problem, "sgr", seed)
    assert robust["test_accuracy"] > best - 1
    assert robust["outlier_mass"] < 0.01
    assert finished(problem, "mean", seed)["test_accuracy"] < best - 30
    for name in ("coordinate_median", "geometric_median", "trimmed_mean"):
        assert finished(problem, name, seed)["test_accuracy"] < robust["test_accuracy"] - 1
