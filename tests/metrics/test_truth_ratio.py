"""Right and wrong answers: ratios by hand, both averages, both aggregations, and the tests made of them."""

import math

import numpy as np
import pytest
import torch

from fisherexp.metrics.truth_ratio import (
    closer_to_one,
    forget_quality,
    membership_auc,
    model_utility,
    normalized_probability,
    true_preferred,
    truth_ratio,
)

# two facts: the first with two wrong answers, the second with one; probabilities to the power of one over the length
RIGHT, WRONG, FACT = [0.5, 0.1], [0.2, 0.05, 0.4], torch.tensor([0, 0, 1])


def losses(probabilities):
    return -torch.tensor(probabilities, dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("average", "first"), [("geometric", math.sqrt(0.2 * 0.05) / 0.5), ("arithmetic", (0.2 + 0.05) / 2 / 0.5)]
)
def test_the_ratio_is_of_wrong_to_right(average, first):
    found = truth_ratio(losses(RIGHT), losses(WRONG), FACT, average)
    assert found.tolist() == pytest.approx([first, 4.0])
    assert truth_ratio(losses(RIGHT), losses(WRONG), FACT).tolist() != pytest.approx([0.25, 4.0])  # the default


def test_the_two_aggregations():
    ratios = torch.tensor([0.2, 4.0, 1.0], dtype=torch.float64)
    assert closer_to_one(ratios) == pytest.approx((0.2 + 0.25 + 1) / 3)
    assert true_preferred(ratios) == pytest.approx(0.8 / 3)


def test_a_choice_among_answers():
    found = normalized_probability(losses(RIGHT), losses(WRONG), FACT)
    assert found.tolist() == pytest.approx([0.5 / 0.75, 0.1 / 0.5])


def test_forget_quality_is_the_exact_test_of_small_samples():
    one = torch.tensor([1.0, 2.0, 3.0])
    assert forget_quality(one, one) == 1
    # of the 20 ways to mix three and three, two keep them apart
    assert forget_quality(one, one + 10) == pytest.approx(2 / 20)
    many = torch.tensor(np.random.RandomState(0).rand(200))
    assert forget_quality(many, many + 0.3) < 1e-6


@pytest.mark.parametrize(("figures", "mean"), [([0.5, 1.0], 2 / 3), ([0.3] * 9, 0.3), ([0.9, 0.0], 0.0)])
def test_utility_is_the_harmonic_mean_and_nothing_makes_up_for_a_zero(figures, mean):
    assert model_utility(figures) == pytest.approx(mean)


@pytest.mark.parametrize(
    ("learned", "auc"), [([0.1, 0.2], 1.0), ([3.0, 4.0], 0.0), ([0.1, 4.0], 0.5), ([1.0, 1.5], 0.625)]
)
def test_low_scores_tell_what_was_learned(learned, auc):
    held_out = torch.tensor([1.0, 2.0])  # a tie counts half
    assert membership_auc(torch.tensor(learned), held_out) == auc
