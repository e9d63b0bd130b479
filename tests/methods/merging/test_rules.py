"""What every rule owes: K copies of a model are merged into that model, and one expert alone is itself."""

import pytest
import torch

from fisherexp.methods.merging.average import mean_of
from fisherexp.methods.merging.dare import dropped
from fisherexp.methods.merging.fisher_merging import fisher_average
from fisherexp.methods.merging.merging import moved, task_vectors
from fisherexp.methods.merging.r_tsvm import reweighted_merge
from fisherexp.methods.merging.regmean import regression_mean
from fisherexp.methods.merging.task_arithmetic import summed
from fisherexp.methods.merging.ties import agreed, trimmed
from fisherexp.methods.merging.tsvm import singular_merge


def grams(models):
    drawn = torch.Generator().manual_seed(9)
    rows = [torch.randn(7, 5, generator=drawn, dtype=torch.float64) for _ in models]
    return [{"a": x.T @ x} for x in rows]


def fishers(models):
    return [{name: (k + 1) * tensor.square() for name, tensor in model.items()} for k, model in enumerate(models)]


RULES = {
    "average": lambda base, models: mean_of(models),
    "fisher_merging": lambda base, models: fisher_average(models, fishers(models)),
    "regmean": lambda base, models: regression_mean(models, grams(models)),
    "task_arithmetic": lambda base, models: moved(base, summed(task_vectors(base, models)), 1 / len(models)),
    "ties": lambda base, models: moved(base, agreed([trimmed(d, 1.0) for d in task_vectors(base, models)])),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("copies", [1, 3])
def test_copies_of_a_model_are_that_model(rule, copies, base, models, assert_same):
    assert_same(RULES[rule](base, [models[0]] * copies), models[0], tolerance=1e-6)


@pytest.mark.parametrize("merge", [singular_merge, lambda deltas, kernels: reweighted_merge(deltas, 0.0, kernels)])
def test_one_expert_at_full_rank_is_itself(merge, base, models, assert_same):
    for kernels in ("average", "matrix"):
        assert_same(moved(base, merge(task_vectors(base, models[:1]), kernels)), models[0])


@pytest.mark.parametrize("rule", ["average", "task_arithmetic", "ties"])
def test_order_of_the_experts_does_not_matter(rule, base, models, assert_same):
    assert_same(RULES[rule](base, models), RULES[rule](base, models[::-1]))


def test_dropping_nothing_changes_nothing(models, assert_same):
    assert_same(dropped(models[0], 0.0, torch.Generator()), models[0])
