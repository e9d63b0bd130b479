"""Fisher merging: special cases that have a closed form, and what the estimator changes."""

import pytest
import torch

from fisherexp.curvature import FisherDiagonal
from fisherexp.methods.importance import Importance
from fisherexp.methods.merging.coefficients import coefficients
from fisherexp.methods.merging.fisher_merging import FisherMerging, fisher_average, normalized
from fisherexp.methods.merging.merging import mean_of


def ones(models):
    return [{name: torch.ones_like(tensor) for name, tensor in model.items()} for model in models]


def test_equal_fishers_give_the_weighted_mean(models, assert_same):
    for weights in ([1.0, 1.0, 1.0], [0.5, 0.3, 0.2]):
        assert_same(fisher_average(models, ones(models), weights), mean_of(models, weights))


def test_a_much_larger_fisher_wins(models, assert_same):
    fishers = ones(models)
    fishers[1] = {name: 1e12 * tensor for name, tensor in fishers[1].items()}
    assert_same(fisher_average(models, fishers), models[1], tolerance=1e-9)


def test_minimizes_the_sum_of_quadratics(models):
    """The gradient of Σ_k F_k (θ - θ_k)² vanishes there."""
    fishers = [{name: tensor.abs() + k for name, tensor in model.items()} for k, model in enumerate(models, start=1)]
    merged = fisher_average(models, fishers)
    for name, theta in merged.items():
        slope = sum(fisher[name] * (theta - model[name]) for fisher, model in zip(fishers, models, strict=True))
        torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-12)


@pytest.mark.parametrize("favor_first", [True, False])
def test_where_all_fishers_vanish(favor_first, models, assert_same):
    zero = [{name: torch.zeros_like(tensor) for name, tensor in model.items()} for model in models]
    merged = fisher_average(models, zero, favor_first=favor_first)
    assert_same(merged, models[0] if favor_first else mean_of(models))


def test_normalizing_removes_the_scale_and_leaves_zero_alone(models):
    fisher = {name: tensor.square() for name, tensor in models[0].items()}
    scaled = normalized({name: 7.0 * tensor for name, tensor in fisher.items()})
    for name, tensor in normalized(fisher).items():
        torch.testing.assert_close(scaled[name], tensor)
    assert sum(tensor.square().sum() for tensor in scaled.values()).item() == pytest.approx(1)
    assert normalized({"a": torch.zeros(2)})["a"].tolist() == [0, 0]


def official(models, fishers, weights, floor):
    """The authors' rule, entry by entry: coefficients over norms, the floor on the first raw Fisher alone."""
    norms = [sum(t.square().sum() for t in fisher.values()).sqrt() for fisher in fishers]
    merged = {}
    for name in models[0]:
        given = [fisher[name] for fisher in fishers]
        given[0] = torch.maximum(given[0], torch.tensor(floor, dtype=torch.float64))
        shares = [c / n * f for c, n, f in zip(weights, norms, given, strict=True)]
        merged[name] = sum(s * m[name] for s, m in zip(shares, models, strict=True)) / sum(shares)
    return merged


@pytest.mark.parametrize(("floor_on", "theirs"), [("raw", True), ("normalized", False)])
def test_floor_on_the_raw_fisher_is_that_of_the_authors_code(floor_on, theirs, models, assert_same):
    """With a small norm the floor on what is normalized is another one."""
    fishers = [{name: 1e-2 * (k + 1) * t.square() for name, t in model.items()} for k, model in enumerate(models)]
    options = {"experts": None, "model": torch.nn.Linear(2, 2), "batch_norm": "average"}
    method = FisherMerging(Importance(), floor=1e-3, floor_on=floor_on, **options)
    method.given["expert_fishers"] = {k: FisherDiagonal(fisher, None, 1.0) for k, fisher in enumerate(fishers)}
    weights = [0.5, 0.3, 0.2]
    found = method.merged({}, models, weights)
    expected = official(models, fishers, weights, 1e-3)
    if theirs:
        assert_same(found, expected, tolerance=1e-12)
    else:
        assert max((found[name] - expected[name]).abs().max() for name in found) > 1e-3


def test_coefficients_are_on_the_simplex_and_begin_with_equal_ones():
    found = coefficients(4, 10)
    assert found[0] == [0.25] * 4
    assert found == coefficients(4, 10)
    assert len({tuple(weights) for weights in found}) == 11
    for weights in found:
        assert sum(weights) == pytest.approx(1, abs=1e-6)
        assert min(weights) >= 0
