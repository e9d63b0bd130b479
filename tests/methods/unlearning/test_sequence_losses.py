"""Losses of tokens and of sequences against a loop, of tokens that do not count, and of samples with a class."""

import pytest
import torch
from tiny_tokens import SPANS, TokenNet, rows_of, token_batch
from torch.nn import functional as F

from fisherexp.methods.unlearning.sequence_losses import counted, lengths, sequence_losses, token_losses


@pytest.fixture(scope="module")
def given():
    batch, model = token_batch(), TokenNet()
    return model(batch.inputs).detach(), batch.targets, rows_of(model, batch, torch.ones(5, dtype=torch.bool))


def test_sequences_are_sums_of_the_tokens_that_count(given):
    logits, targets, rows = given
    expected = torch.stack([torch.stack(row).sum() for row in rows]).detach()
    torch.testing.assert_close(sequence_losses(logits, targets), expected)
    assert lengths(targets).tolist() == [len(row) for row in rows] == [stop - start for start, stop in SPANS]


def test_tokens_that_do_not_count_are_zero_or_left_out(given):
    logits, targets, rows = given
    each, ignored = token_losses(logits, targets), targets == -100
    assert each.shape == targets.shape
    assert not each[ignored].any()
    flat = torch.stack([loss for row in rows for loss in row]).detach()
    torch.testing.assert_close(each[~ignored], flat)
    torch.testing.assert_close(F.cross_entropy(*counted(logits, targets), reduction="none"), flat)


def test_a_class_is_a_sequence_of_one_token(given):
    logits, classes = given[0][:, 0], torch.tensor([0, 3, 6, 1, 2])
    expected = F.cross_entropy(logits, classes, reduction="none")
    torch.testing.assert_close(sequence_losses(logits, classes), expected)
    assert lengths(classes).tolist() == [1] * 5


def test_narrow_logits_are_summed_in_single_precision(given):
    logits, targets, _ = given
    assert token_losses(logits.bfloat16(), targets).dtype == torch.float32
