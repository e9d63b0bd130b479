"""The experiment's pieces by hand, and its published effect at a fifth of its size."""

import math

import pytest
import torch

from fisherexp.data.biased_gaussians import HoldoutInstance, Sample, holdout_instance
from fisherexp.methods.statistics.reusable_holdout import (
    accuracy,
    correlations,
    majority_bias,
    reusable_holdout,
    selected,
    sign_weights,
)
from fisherexp.methods.statistics.thresholdout import laplace_answers


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def test_selection_and_classifier_by_hand():
    train, holdout = torch.tensor([0.3, -0.5, 0.4, 0.1, -0.2]), torch.tensor([0.2, -0.3, -0.4, 0.5, -0.2])
    kept = selected(train, holdout, 0.15)
    assert kept.tolist() == pytest.approx([0.3, -0.5, 0, 0, -0.2])
    assert sign_weights(kept, 2).tolist() == [1, -1, 0, 0, 0]
    assert sign_weights(kept, 4).tolist() == sign_weights(kept, 500).tolist() == [1, -1, 0, 0, -1]
    sample = Sample(torch.tensor([[1.0, 2.0], [3.0, 1.0], [1.0, 1.0]]), torch.tensor([-1.0, 1.0, 1.0]))
    assert correlations(sample).tolist() == pytest.approx([1, 0])
    assert accuracy(torch.tensor([1.0, -1.0]), sample) == pytest.approx(2 / 3)  # an output of 0 is wrong
    assert accuracy(torch.zeros(2), sample) == 0


@pytest.mark.parametrize("mechanism", ["naive", "thresholdout", "split"])
def test_no_variables_score_a_half(mechanism):
    data = holdout_instance(100, 30, True, draw())
    accuracies = reusable_holdout(data, mechanism, draw(), sizes=(0, 5))
    assert [part[0].item() for part in accuracies] == [0.5, 0.5, 0.5]
    assert all(part.shape == (2,) for part in accuracies)
    assert accuracies.train[1] > 0.5


def test_identical_samples_are_reported_as_they_are():
    """Without a gap between train and holdout Thresholdout hardly ever asks the holdout: 4 standard deviations."""
    sample = holdout_instance(400, 50, True, draw())[0]
    accuracies = reusable_holdout(HoldoutInstance(sample, sample, sample), "thresholdout", draw(), sizes=(10, 20))
    assert torch.equal(accuracies.train, accuracies.holdout)


def test_split_uses_each_holdout_sample_once():
    data = holdout_instance(100, 30, True, draw())
    split = reusable_holdout(data, "split", draw(), sizes=(5, 10, 20))
    naive = reusable_holdout(data, "naive", draw(), sizes=(5, 10, 20))
    assert torch.equal(split.fresh, naive.fresh)
    weights = sign_weights(selected(correlations(data.train), correlations(data.holdout), 0.1), 20)
    part = Sample(data.holdout.inputs[67:], data.holdout.labels[67:])
    assert split.holdout[2] == accuracy(weights, part)


def random_queries(count, n, seed):
    return torch.randint(0, 2, (count, n), generator=draw(seed)).float() * 2 - 1


@pytest.mark.parametrize("count", [101, 401])
def test_majority_of_naive_answers_is_off_by_the_closed_form(count):
    biases = []
    for seed in range(60):
        queries = random_queries(count, 1000, seed)
        biases.append(majority_bias(queries, queries.mean(1)))
    assert sum(biases) / 60 == pytest.approx(math.erf(math.sqrt(count / (math.pi * 1000))), abs=0.012)


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_noise_protects_from_the_majority(seed):
    """Dossier: 5,000 queries on 1,000 samples; Lap(0.3) at most halves the bias of naive answers."""
    queries = random_queries(5000, 1000, seed)
    naive = majority_bias(queries, queries.mean(1))
    noisy = majority_bias(queries, laplace_answers(queries.mean(1), 0.3, draw(100 + seed)))
    assert naive > 0.9
    assert noisy <= naive / 2


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_a_naive_holdout_deceives_and_thresholdout_does_not(seed):
    """n = d = 2,000 instead of 10,000, 10 repetitions, k = 200; without signal the truth is ½."""
    results = {"naive": [], "thresholdout": []}
    for repetition in range(10):
        generator = draw(1000 * seed + repetition)
        data = holdout_instance(2000, 2000, False, generator)
        for mechanism, rows in results.items():
            rows.append(torch.stack(reusable_holdout(data, mechanism, generator, sizes=(200,)))[:, 0])
    naive, protected = (torch.stack(rows).mean(0) for rows in results.values())
    assert naive[1] - naive[2] >= 0.10
    assert abs(protected[1] - protected[2]) <= 0.05
    assert abs(naive[2] - 0.5) < 0.02


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_with_signal_thresholdout_still_finds_it(seed):
    """k = 10 of the twenty variables that lean: both classifiers predict fresh labels, and both reports are right."""
    rows = {"naive": [], "thresholdout": []}
    for repetition in range(5):
        generator = draw(1000 * seed + repetition)
        data = holdout_instance(2000, 2000, True, generator)
        for mechanism, found in rows.items():
            found.append(torch.stack(reusable_holdout(data, mechanism, generator, sizes=(10,)))[:, 0])
    for found in rows.values():
        _, reported, truth = torch.stack(found).mean(0)
        assert truth > 0.62
        assert abs(reported - truth) < 0.05
