"""SatImp's weights of tokens, groups, batches and sequences, and hard choices, against loops over single tokens."""

import math

import pytest
import torch
from tiny_tokens import FORGET, TokenNet, gradients, mean_of_tokens, rows_of, taught, token_batch

from fisherexp.methods.unlearning.inverted_hinge import InvertedHinge
from fisherexp.methods.unlearning.satimp import Satimp
from fisherexp.methods.unlearning.satimp_weights import grouped, kept_tokens, satimp_weights, weighted_loss

BATCH = token_batch()
EXPONENTS = pytest.mark.parametrize(("saturation", "importance"), [(5.0, 0.1), (1.0, 0.0), (0.0, 1.0)])


def weight(loss: torch.Tensor, saturation: float, importance: float) -> float:
    p = math.exp(-loss.item())
    return p**saturation * (1 - p) ** importance


def naive(rows, saturation, importance, granularity, size):
    weights = [[weight(loss, saturation, importance) for loss in row] for row in rows]
    if granularity == "instance":
        sums = [torch.stack(row).sum() for row in rows]
        return torch.stack([weight(s, saturation, importance) * s for s in sums]).mean()
    if granularity == "batch":
        flat = [w for row in weights for w in row]
        weights = [[sum(flat) / len(flat)] * len(row) for row in weights]
    if granularity == "group":
        for row in weights:
            order = sorted(range(len(row)), key=lambda t: -row[t])
            for begin in range(0, len(row), size):
                members = order[begin : begin + size]
                mean = sum(row[t] for t in members) / len(members)
                for t in members:
                    row[t] = mean
    pairs = zip((w for row in weights for w in row), (loss for row in rows for loss in row), strict=True)
    return torch.stack([w * loss for w, loss in pairs]).mean()


@EXPONENTS
@pytest.mark.parametrize(("granularity", "size"), [("token", 1), ("group", 2), ("batch", 1), ("instance", 1)])
def test_gradient_is_that_of_the_definition(saturation, importance, granularity, size):
    options = {"saturation": saturation, "importance": importance, "retain_weight": 0.3}
    more = {"granularity": granularity, "group_size": size, "epochs": 1, "lr": 1e-3, "weight_decay": 0.0}
    method, plain = taught(Satimp(TokenNet(), **options, **more), 0), TokenNet()
    forgotten = naive(rows_of(plain, BATCH, FORGET), saturation, importance, granularity, size)
    expected = 0.3 * mean_of_tokens(rows_of(plain, BATCH, ~FORGET)) - forgotten
    torch.testing.assert_close(method.loss(BATCH), expected)
    torch.testing.assert_close(gradients(method.loss(BATCH), method.model), gradients(expected, plain))


@pytest.mark.parametrize("granularity", ["token", "group", "batch", "instance"])
def test_a_sample_with_a_class_has_one_token(granularity):
    logits, classes = 2 * torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    found = weighted_loss(logits, classes, 5.0, 0.1, granularity=granularity)
    losses = torch.nn.functional.cross_entropy(logits, classes, reduction="none")
    weights = satimp_weights(logits, classes, 5.0, 0.1)
    expected = weights.mean() * losses.mean() if granularity == "batch" else (weights * losses).mean()
    torch.testing.assert_close(found, expected)


def test_groups_of_one_change_nothing_and_one_group_is_the_mean():
    weights = torch.tensor([0.2, 0.9, 0.5, 0.1])
    assert torch.equal(grouped(weights, 1), weights)
    torch.testing.assert_close(grouped(weights, 9), weights.mean().expand(4))
    torch.testing.assert_close(grouped(weights, 3), torch.tensor([1.6 / 3, 1.6 / 3, 1.6 / 3, 0.1]))


@pytest.mark.parametrize(
    ("kept", "share", "expected"), [("largest", 0.5, [3, 4]), ("smallest", 0.5, [0, 2]), ("largest", 0.2, [4])]
)
def test_hard_choices_go_by_quantiles_of_the_losses(kept, share, expected):
    losses = torch.tensor([0.1, 0.5, 0.2, 0.9, 3.0])
    assert kept_tokens(losses, kept, share).nonzero().flatten().tolist() == expected


def test_a_random_choice_has_its_share_and_differs_from_step_to_step():
    torch.manual_seed(0)
    found = [kept_tokens(torch.ones(10), "random", 0.3) for _ in range(8)]
    assert {int(mask.sum()) for mask in found} == {3}
    assert len({tuple(mask.tolist()) for mask in found}) > 1


def test_tokens_that_are_not_kept_have_no_gradient():
    logits = torch.randn(1, 5, 4, dtype=torch.float64).requires_grad_()
    targets = torch.tensor([[0, 1, -100, 2, 3]])
    losses = torch.nn.functional.cross_entropy(logits[0], targets[0], reduction="none", ignore_index=-100)
    gradient = torch.autograd.grad(weighted_loss(logits, targets, 0.0, 0.0, kept="largest", share=0.3), logits)[0]
    moved = gradient[0].abs().sum(1) > 0
    assert moved.nonzero().flatten().tolist() == [int(losses.argmax())]


def test_inverted_hinge_of_tokens():
    method, plain = InvertedHinge(TokenNet(), 0.3, epochs=1, lr=1e-3, weight_decay=0.0), TokenNet()
    found, terms = taught(method, 0).loss(BATCH), []
    for tokens, targets in zip(BATCH.inputs[FORGET], BATCH.targets[FORGET], strict=True):
        for p, y in zip(plain(tokens[None])[0].softmax(-1), targets.tolist(), strict=True):
            if y >= 0:
                terms.append(1 + p[y] - max(p[v] for v in range(len(p)) if v != y))
    expected = torch.stack(terms).mean() + 0.3 * mean_of_tokens(rows_of(plain, BATCH, ~FORGET))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, method.model), gradients(expected, plain))
