"""NegGrad+: the weighted difference of two mean losses, between fine-tuning and gradient ascent."""

import pytest
import torch
from torch import nn

from fisherexp.data.batch import Batch
from fisherexp.methods.unlearning.neggrad_plus import NeggradPlus

torch.manual_seed(0)
IMAGES, LABELS = torch.randn(7, 4, dtype=torch.float64), torch.randint(0, 3, (7,))
FORGOTTEN = torch.tensor([False, True, False, False, True, False, True])
BATCH = Batch(IMAGES, LABELS, tags={"forgotten": FORGOTTEN})


def loss(alpha: float) -> tuple[torch.Tensor, nn.Module]:
    torch.manual_seed(1)
    model = nn.Linear(4, 3).double()
    return NeggradPlus(model, alpha, epochs=1, lr=0.1, momentum=0.0, weight_decay=0.0).loss(BATCH), model


def mean_loss(model: nn.Module, which: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, one sample at a time."""
    logits = model(IMAGES)
    losses = [logits[i].logsumexp(0) - logits[i, LABELS[i]] for i in which.nonzero().flatten()]
    return torch.stack(losses).mean()


@pytest.mark.parametrize("alpha", [0.95, 0.5])
def test_loss_is_the_weighted_difference(alpha):
    value, model = loss(alpha)
    expected = alpha * mean_loss(model, ~FORGOTTEN) - (1 - alpha) * mean_loss(model, FORGOTTEN)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(("alpha", "which", "sign"), [(1.0, ~FORGOTTEN, 1), (0.0, FORGOTTEN, -1)])
def test_ends_are_fine_tuning_and_gradient_ascent(alpha, which, sign):
    value, model = loss(alpha)
    gradients = torch.autograd.grad(value, list(model.parameters()))
    expected = torch.autograd.grad(sign * mean_loss(model, which), list(model.parameters()))
    for gradient, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, wanted)
