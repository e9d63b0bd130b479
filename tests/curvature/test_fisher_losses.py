"""Losses that mix samples, and targets and weights that cannot be meant, are refused; others count as they should."""

import numpy as np
import pytest
import torch
from fisher_oracles import one_at_a_time, worst
from torch import nn
from torch.nn import functional as F

from fisherexp.curvature import DiagonalAccumulator, fisher_diagonal, per_sample_gradient_norms

N, T, D, C, V = 6, 5, 4, 3, 260


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, D), nn.Linear(D, V)

    def forward(self, tokens):
        return self.head(torch.tanh(self.embed(tokens)))


def by_mean_length(outputs, targets):
    """Divided by the mean number of tokens of the batch, which a batch without padding does not show."""
    each = F.cross_entropy(outputs.mT, targets, reduction="none", ignore_index=-100)
    return each.sum(1) / (targets != -100).sum(1).float().mean()


def test_losses_are_verified_in_later_batches_too():
    full, ragged = torch.randint(V, (N, T)), torch.randint(V, (N, T))
    ragged[0, 2:] = ragged[3, 1:] = -100
    accumulator = DiagonalAccumulator(Words(), loss=by_mean_length)
    accumulator.update(full, full)
    with pytest.raises(ValueError, match=r"by_mean_length.*of a sample changes with the other samples"):
        accumulator.update(full, ragged)


def test_losses_near_their_minimum_keep_samples_apart():
    """There gradients are rounding; what differs by it is no influence. Compared in float64 it is small."""

    def loss(outputs, targets):
        return (outputs.softmax(1) - F.one_hot(targets, C)).square().sum(1)

    model, y = nn.Linear(D, C), torch.arange(N) % C
    with torch.no_grad():
        model.weight.zero_()[:, :C] = 30 * torch.eye(C)
    batch = F.one_hot(y, D).float(), y
    accumulator = DiagonalAccumulator(model, loss=loss)
    for _ in range(8):
        accumulator.update(*batch)
    assert accumulator.result().count == 8 * N


def test_unsigned_tokens_have_no_ignored_class():
    """-100 as an unsigned byte is 156, which is a token."""
    model, tokens = Words(), torch.randint(256, (N, T))
    tokens[:, 0] = 156
    found = fisher_diagonal(model, [(tokens, tokens.to(torch.uint8))], loss="sequence")
    expected = one_at_a_time(model, tokens, tokens, lambda out, y: F.cross_entropy(out.mT, y))
    assert worst(found, expected) < 1e-4


@pytest.mark.parametrize(
    ("said", "targets", "weights", "loss"),
    [
        ("must not be negative", torch.full((N, C), -100.0), None, None),
        ("one for each", torch.zeros(N, dtype=torch.long), torch.rand(N, T), None),
        ("must be a tensor, got list", [0] * N, None, None),
        ("must be a tensor, got ndarray", np.zeros(N, dtype=np.int64), None, None),
        ("has no gradient", torch.zeros(N), None, lambda out, y: out.detach().sum(1)),
    ],
)
def test_what_cannot_be_meant_is_refused(said, targets, weights, loss):
    with pytest.raises(ValueError, match=said):
        DiagonalAccumulator(nn.Linear(D, C), loss=loss).update(torch.randn(N, D), targets, weights)


def test_norms_refuse_targets_that_are_no_tensor():
    with pytest.raises(ValueError, match="must be a tensor, got list"):
        per_sample_gradient_norms(nn.Linear(D, C), torch.randn(N, D), [0] * N)
