"""Inverted hinge loss: its value, its gradient in closed form, its range, and the sum with the retained loss."""

import pytest
import torch
from torch import nn

from fisherexp.data.batch import Batch
from fisherexp.methods.unlearning.inverted_hinge import InvertedHinge, inverted_hinge

torch.manual_seed(0)
LOGITS, LABELS = 2 * torch.randn(20, 5, dtype=torch.float64), torch.randint(0, 5, (20,))


def test_loss_is_one_plus_the_margin_of_probabilities():
    for logits, label, found in zip(LOGITS, LABELS, inverted_hinge(LOGITS, LABELS), strict=True):
        p = logits.exp() / logits.exp().sum()
        expected = 1 + p[label] - max(p[v] for v in range(5) if v != label)
        torch.testing.assert_close(found, expected)


def test_gradient_is_that_of_the_closed_form():
    logits = LOGITS.clone().requires_grad_()
    (found,) = torch.autograd.grad(inverted_hinge(logits, LABELS).sum(), logits)
    p = LOGITS.softmax(1)
    for i, y in enumerate(LABELS.tolist()):
        s = max((v for v in range(5) if v != y), key=lambda v: p[i, v])
        for v in range(5):
            expected = p[i, v] * (p[i, s] - p[i, y])
            if v == y:
                expected = p[i, y] * (1 + p[i, s] - p[i, y])
            elif v == s:
                expected = -p[i, s] * (1 + p[i, y] - p[i, s])
            torch.testing.assert_close(found[i, v], expected)


def test_range_is_reached_from_certainty_and_from_certainty_elsewhere():
    logits = torch.tensor([[60.0, 0.0, 0.0], [0.0, 60.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    found = inverted_hinge(logits, torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(found, torch.tensor([2.0, 0.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("weight", [0.0, 1.0, 0.3])
def test_sum_with_the_retained_loss(weight):
    images, labels = torch.randn(6, 4, dtype=torch.float64), torch.randint(0, 3, (6,))
    forget = torch.tensor([False, True, False, False, True, False])
    model = nn.Linear(4, 3).double()
    found = InvertedHinge(model, weight, epochs=1, lr=1e-3, weight_decay=0.0).loss(
        Batch(images, labels, tags={"forgotten": forget})
    )
    retained = nn.functional.cross_entropy(model(images[~forget]), labels[~forget])
    torch.testing.assert_close(found, inverted_hinge(model(images[forget]), labels[forget]).mean() + weight * retained)
