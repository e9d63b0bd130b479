"""Bits, perplexity and accuracy of predictions whose values are known in closed form."""

import math

import pytest
import torch

from fisherexp.metrics.language import LanguageMetrics


def test_an_even_guess_costs_log_of_the_vocabulary():
    metric = LanguageMetrics(("test",))
    metric.update(0, torch.zeros(2, 5, 8), torch.randint(1, 8, (2, 5)))
    found = metric.compute()
    assert found["test_bits"] == pytest.approx(3)
    assert found["test_perplexity"] == pytest.approx(8)
    assert found["test_accuracy"] == 0  # of equals, the first is taken
    assert set(metric.headings) == set(metric.better) == set(found)


@pytest.mark.parametrize(("nats", "perplexity"), [(700.0, math.exp(700)), (800.0, math.inf)])
def test_a_model_that_is_sure_and_wrong_has_figures_too(nats, perplexity):
    """As after gradient ascent."""
    metric = LanguageMetrics(("test",))
    metric.update(0, torch.tensor([[[nats, 0.0]]]), torch.tensor([[1]]))
    found = metric.compute()
    assert (found["test_nll"], found["test_perplexity"]) == (nats, pytest.approx(perplexity))


def test_parts_and_batches_are_means_over_tokens():
    probabilities = torch.tensor([0.5, 0.25, 0.25])
    metric = LanguageMetrics(("validation", "test"))
    metric.update(0, torch.zeros(1, 4, 3), torch.zeros(1, 4, dtype=torch.int64))
    metric.update(1, probabilities.log().expand(1, 3, 3), torch.tensor([[0, 0, 1]]))
    metric.update(1, probabilities.log().expand(1, 1, 3), torch.tensor([[2]]))
    found = metric.compute()
    assert found["validation_bits"] == pytest.approx(math.log2(3))
    assert found["test_bits"] == pytest.approx((1 + 1 + 2 + 2) / 4)
    assert found["test_accuracy"] == pytest.approx(50)


def test_ragged_batches_are_one_mean_over_their_tokens():
    torch.manual_seed(0)
    batches = [(torch.randn(2, length, 5), torch.randint(0, 5, (2, length))) for length in (1, 3, 8)]
    for logits, labels in batches:
        labels[0, logits.shape[1] // 2 :] = -100
    metric = LanguageMetrics(("test",))
    each = []
    for logits, labels in batches:
        metric.update(0, logits, labels)
        each.append(torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item())
    logits, labels = (torch.cat([part.flatten(0, 1) for part in parts]) for parts in zip(*batches, strict=True))
    wanted = torch.nn.functional.cross_entropy(logits[labels >= 0], labels[labels >= 0]).item()
    found = metric.compute()
    assert found["test_nll"] == pytest.approx(wanted)
    assert found["test_perplexity"] == pytest.approx(math.exp(wanted))
    assert found["test_bits"] == pytest.approx(wanted / math.log(2))
    assert found["test_nll"] != pytest.approx(sum(each) / 3, rel=1e-3)  # the control
