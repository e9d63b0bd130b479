"""What is left of forgotten samples without classes: means and an attack on losses of known distributions."""

import pytest
import torch

from fisherexp.metrics.forgetting import ForgettingMetrics
from fisherexp.objectives.token_prediction import TokenPrediction

PARTS = ("retain", "forget", "test_retain", "test_forget")


def fed(losses, names=PARTS):
    metric = ForgettingMetrics(names, lambda outputs, targets: outputs)
    for number, name in enumerate(names):
        for some in losses[name].split(7):
            metric.update(number, some, some)
    return metric.compute()


@pytest.mark.parametrize(("forget", "expected"), [(0.1, 100.0), (3.0, 0.0)])
def test_samples_as_easy_as_members_are_taken_for_members(forget, expected):
    noise = 0.05 * torch.randn(3, 60, generator=torch.Generator().manual_seed(0))
    losses = {"retain": 0.1 + noise[0], "test_retain": 3 + noise[1], "forget": forget + noise[2][:20]}
    found = fed(losses, ("retain", "forget", "test_retain"))
    assert found["mia"] == expected
    assert found["forget_loss"] == pytest.approx(losses["forget"].mean().item())
    assert found["retain_loss"] == pytest.approx(losses["test_retain"].mean().item())


def test_with_forgotten_test_samples_they_are_what_counts():
    losses = {name: torch.full((10,), float(i)) for i, name in enumerate(PARTS)}
    found = fed(losses)
    assert (found["forget_loss"], found["forget_train_loss"], found["retain_train_loss"]) == (3.0, 1.0, 0.0)


def test_a_model_that_diverged_is_refused():
    losses = {name: torch.ones(5) for name in PARTS} | {"forget": torch.tensor([1.0, torch.inf])}
    with pytest.raises(ValueError, match="'forget' are not finite"):
        fed(losses)


def test_a_sequence_counts_once_whatever_its_padding():
    logits, targets = torch.randn(2, 5, 4), torch.randint(4, (2, 5))
    targets[0, 2:] = -100
    each = TokenPrediction().sample_losses(logits, targets)
    expected = torch.nn.functional.cross_entropy(logits[0, :2], targets[0, :2])
    torch.testing.assert_close(each[0], expected)
