"""Token prediction, with and without tokens that are not to be predicted, against plain torch."""

import math

import pytest
import torch
from torch.nn import functional as F

from fisherexp.objectives.token_prediction import IGNORED, TokenPrediction

torch.manual_seed(0)
LOGITS = torch.randn(4, 5, 6, dtype=torch.float64)
ALL = torch.randint(0, 6, (4, 5))
GONE = torch.tensor([[0, 0, 0, 0, 1], [1, 1, 1, 1, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
SOME = ALL.masked_fill(GONE, IGNORED)
OBJECTIVE = TokenPrediction()


def by_hand(tokens: torch.Tensor) -> list[list[torch.Tensor]]:
    """The losses of the tokens of each sequence, one by one."""
    return [
        [-LOGITS[n, t].log_softmax(0)[y] for t, y in enumerate(row) if y != IGNORED]
        for n, row in enumerate(tokens.tolist())
    ]


@pytest.mark.parametrize("tokens", [ALL, SOME], ids=["all", "some"])
def test_a_loss_is_over_tokens_and_a_samples_is_the_mean_over_its_own(tokens):
    losses = by_hand(tokens)
    flat = torch.stack([loss for row in losses for loss in row])
    torch.testing.assert_close(OBJECTIVE.loss(LOGITS, tokens), flat.mean())
    torch.testing.assert_close(OBJECTIVE.loss(LOGITS, tokens, reduction="sum"), flat.sum())
    expected = torch.stack([torch.stack(row).mean() for row in losses])
    torch.testing.assert_close(OBJECTIVE.sample_losses(LOGITS, tokens), expected)
    # The two means differ where sequences differ in length: neither stands in for the other.
    assert torch.isclose(expected.mean(), flat.mean()) == (tokens is ALL)


def test_loss_is_that_of_torch_to_the_bit():
    logits = LOGITS.float()
    assert torch.equal(OBJECTIVE.loss(logits, SOME), F.cross_entropy(logits.flatten(0, -2), SOME.flatten()))


def test_a_sequence_with_nothing_to_predict_has_no_loss():
    tokens = SOME.clone()
    tokens[2] = IGNORED
    found = OBJECTIVE.sample_losses(LOGITS, tokens)
    assert found[2] == 0
    torch.testing.assert_close(found[[0, 1, 3]], OBJECTIVE.sample_losses(LOGITS, SOME)[[0, 1, 3]])


def test_metrics_are_those_of_the_next_token():
    metrics = OBJECTIVE.metrics(("test",), "validation")
    metrics.update(0, LOGITS, ALL)
    expected = OBJECTIVE.loss(LOGITS, ALL).item() / math.log(2)
    assert metrics.compute()["test_bits"] == pytest.approx(expected)
