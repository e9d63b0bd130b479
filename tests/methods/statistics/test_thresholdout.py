"""The mechanism: its branches without noise, its noise, its budget."""

import math

import pytest
import torch

from fisherexp.methods.statistics.thresholdout import (
    BudgetSpentError,
    ThresholdoutState,
    gaussian_answers,
    laplace,
    laplace_answers,
    start,
    thresholdout,
)

TRAIN = torch.tensor([0.1, 0.5, 0.9, 0.3], dtype=torch.float64)
HOLDOUT = torch.tensor([0.2, 0.5, 0.1, 0.31], dtype=torch.float64)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def asked(threshold, sigma, budget=100, seed=0):
    generator = draw(seed)
    state = start(threshold, sigma, budget, generator)
    answers = []
    for train, holdout in zip(TRAIN.tolist(), HOLDOUT.tolist(), strict=True):
        answer, state = thresholdout(state, train, holdout, threshold, sigma, generator)
        answers.append(answer)
    return answers, state


@pytest.mark.parametrize(
    ("threshold", "expected", "spent"),
    [(math.inf, TRAIN, 0), (0.0, HOLDOUT, 3), (0.05, torch.tensor([0.2, 0.5, 0.1, 0.3]), 2)],
)
def test_without_noise_gaps_decide_and_only_the_holdouts_answers_cost(threshold, expected, spent):
    answers, state = asked(threshold, 0.0)
    assert [answer.value for answer in answers] == pytest.approx(expected.tolist())
    assert sum(answer.from_holdout for answer in answers) == spent
    assert state == ThresholdoutState(threshold, 100 - spent)
    generator = draw()
    torch.testing.assert_close(gaussian_answers(TRAIN, HOLDOUT, threshold, 0.0, generator), expected.double())


def test_seeds_reproduce():
    assert asked(0.05, 0.1, seed=1) == asked(0.05, 0.1, seed=1)
    assert asked(0.05, 0.1, seed=1) != asked(0.05, 0.1, seed=2)


def test_threshold_changes_with_an_answer_of_the_holdout_only():
    generator = draw()
    state = start(0.2, 1e-3, 5, generator)
    answer, same = thresholdout(state, 0.5, 0.5, 0.2, 1e-3, generator)
    assert not answer.from_holdout
    assert same == state
    answer, other = thresholdout(state, 0.0, 0.9, 0.2, 1e-3, generator)
    assert answer.from_holdout
    assert answer.value != 0.9
    assert other.budget == 4
    assert other.threshold != state.threshold


def test_a_spent_budget_answers_nothing():
    _, state = asked(0.0, 0.0, budget=3)
    assert state.budget == 0
    with pytest.raises(BudgetSpentError, match="budget=0"):
        thresholdout(state, 0.5, 0.5, 0.0, 0.0, draw())


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_laplace_has_its_scale(scale):
    values = laplace((200_000,), scale, draw())
    assert values.abs().mean().item() == pytest.approx(scale, rel=0.02)
    assert values.std().item() == pytest.approx(math.sqrt(2) * scale, rel=0.02)
    for multiple in (1.0, 2.0):
        assert (values > multiple * scale).double().mean().item() == pytest.approx(math.exp(-multiple) / 2, rel=0.03)
    added = laplace_answers(torch.full((200_000,), 7.0), scale, draw()) - 7
    assert added.abs().mean().item() == pytest.approx(scale, rel=0.02)


def test_noise_scales_of_the_three_draws():
    """Thresholds, tests and answers spread as Lap(2σ), Lap(4σ) and Lap(σ): by their mean magnitudes."""
    generator, sigma = draw(), 0.1
    thresholds = torch.tensor([start(1.0, sigma, 1, generator).threshold - 1 for _ in range(4_000)])
    assert thresholds.abs().mean().item() == pytest.approx(2 * sigma, rel=0.07)
    always, edge = ThresholdoutState(-math.inf, 9), ThresholdoutState(0.5, 9)
    answers = torch.tensor([thresholdout(always, 0, 0.5, 0, sigma, generator)[0].value for _ in range(4_000)])
    assert (answers - 0.5).abs().mean().item() == pytest.approx(sigma, rel=0.07)
    passed = [thresholdout(edge, 0.0, 0.5 + 4 * sigma, 0.5, sigma, generator)[0].from_holdout for _ in range(4_000)]
    assert sum(passed) / 4_000 == pytest.approx(1 - math.exp(-1) / 2, abs=0.03)  # gap is one scale above T̂


def test_gaussian_noise_decides_and_is_added():
    count, generator = 100_000, draw()
    train, holdout = torch.zeros(count), torch.full((count,), 0.6)
    answers = gaussian_answers(train, holdout, 0.5, 0.1, generator)
    from_holdout = answers != 0
    assert from_holdout.double().mean().item() == pytest.approx(0.5 * (1 + math.erf(1 / math.sqrt(2))), abs=0.01)
    assert answers[from_holdout].std().item() == pytest.approx(0.1, rel=0.02)
    assert answers[from_holdout].mean().item() == pytest.approx(0.6, rel=0.01)
