"""Closed-form head gradients against autograd, sample by sample, in float64."""

import pytest
import torch
from torch.nn import functional as F

from fisherexp.curvature.head_gradients import (
    head_gradient_gram,
    head_gradient_mean,
    head_gradient_norms,
    head_gradient_second_moment,
    head_gradient_variance,
    head_residuals,
    per_sample_head_gradients,
    probabilities,
)

N, D = 9, 5
CASES = [("softmax", 2), ("softmax", 7), ("softmax", 1), ("binary", 1), ("binary", 3)]


def problem(head, classes, seed=0):
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(N, D, dtype=torch.float64, generator=g)
    weight = torch.randn(classes, D + 1, dtype=torch.float64, generator=g)
    if head == "softmax":
        labels = torch.randint(0, classes, (N,), generator=g)
    else:
        labels = torch.randint(0, 2, (N, classes), generator=g).double()
    return features, weight, labels


def sample_loss(logits, labels, head):
    if head == "softmax":
        return F.cross_entropy(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")


def autograd_gradients(features, weight, labels, head):
    rows = []
    for h, y in zip(features, labels, strict=True):
        w = weight.clone().requires_grad_()
        logits = (w[:, : len(h)] @ h + (w[:, len(h)] if w.shape[1] > len(h) else 0))[None]
        rows.append(torch.autograd.grad(sample_loss(logits, y[None], head), w)[0])
    return torch.stack(rows)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("head", "classes"), CASES)
def test_everything_follows_from_per_sample_autograd(head, classes, bias):
    features, weight, labels = problem(head, classes)
    weight = weight if bias else weight[:, :D]
    logits = features @ weight[:, :D].T + (weight[:, D] if bias else 0)
    g = autograd_gradients(features, weight, labels, head)
    args, options = (features, logits, labels), {"head": head, "bias": bias}
    close = {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(per_sample_head_gradients(*args, **options), g, **close)
    torch.testing.assert_close(head_gradient_mean(*args, **options), g.mean(0), **close)
    torch.testing.assert_close(head_gradient_second_moment(*args, **options), g.square().mean(0), **close)
    torch.testing.assert_close(head_gradient_variance(*args, **options), g.var(0, correction=0), **close)
    flat = g.flatten(1)
    torch.testing.assert_close(head_gradient_norms(*args, **options), flat.norm(dim=1), **close)
    torch.testing.assert_close(head_gradient_gram(*args, **options), flat @ flat.T, **close)


@pytest.mark.parametrize("head", ["softmax", "binary"])
def test_soft_labels_mix_the_gradients_of_hard_ones(head):
    features, weight, _ = problem(head, 4)
    logits = features @ weight[:, :D].T
    a, b = torch.eye(4, dtype=torch.float64)[torch.randint(0, 4, (2, N), generator=torch.manual_seed(1))]
    mixed = per_sample_head_gradients(features, logits, 0.3 * a + 0.7 * b, head=head)
    parts = [per_sample_head_gradients(features, logits, y, head=head) for y in (a, b)]
    torch.testing.assert_close(mixed, 0.3 * parts[0] + 0.7 * parts[1])


@pytest.mark.parametrize("head", ["softmax", "binary"])
def test_confident_float32_keeps_its_digits(head):
    logits = torch.linspace(-30, 30, 41)[:, None] * torch.tensor([[1.0, -0.4, 0.1]])
    labels = logits.argmax(1)  # the true class is the confident one: p - 1 would be rounded away
    if head == "binary":
        labels = (logits > 0).float()
    exact = head_residuals(logits.double(), labels, head)
    torch.testing.assert_close(head_residuals(logits, labels, head).double(), exact, rtol=5e-6, atol=0)
    for single, double in zip(probabilities(logits, head), probabilities(logits.double(), head), strict=True):
        torch.testing.assert_close(single.double(), double, rtol=5e-6, atol=0)


def test_differentiable_through_features_and_logits():
    features, weight, labels = problem("softmax", 3)

    def variance(h, w):
        return head_gradient_variance(h, h @ w[:, :D].T + w[:, D], labels)

    assert torch.autograd.gradcheck(variance, (features.requires_grad_(), weight.requires_grad_()))


def test_one_binary_output_may_be_flat():
    features, weight, labels = problem("binary", 1)
    logits = features @ weight[:, :D].T
    flat = per_sample_head_gradients(features, logits[:, 0], labels[:, 0], head="binary")
    torch.testing.assert_close(flat, per_sample_head_gradients(features, logits, labels, head="binary"))


@pytest.mark.parametrize(
    ("features", "logits", "labels", "head", "match"),
    [
        (torch.ones(3, 2), torch.ones(4, 2), torch.zeros(4).long(), "softmax", "same n samples"),
        (torch.ones(0, 2), torch.ones(0, 2), torch.zeros(0).long(), "softmax", "no samples"),
        (torch.ones(3, 2), torch.ones(3, 2), torch.full((3,), 2), "softmax", r"0\.\.1"),
        (torch.ones(3, 2), torch.ones(3, 2), torch.zeros(3), "binary", "do not fit"),
        (torch.ones(3, 2), torch.ones(3, 2), torch.zeros(3).long(), "sofmax", "did you mean 'softmax'"),
    ],
)
def test_errors(features, logits, labels, head, match):
    with pytest.raises(ValueError, match=match):
        per_sample_head_gradients(features, logits, labels, head=head)
