"""SatImp: the weights, their special cases, that no gradient flows through them, and a sure sample's first step."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.data.batch import Batch
from fisherexp.methods.unlearning.satimp import Satimp
from fisherexp.methods.unlearning.satimp_weights import satimp_weights

torch.manual_seed(0)
LOGITS, LABELS = 2 * torch.randn(8, 5, dtype=torch.float64), torch.randint(0, 5, (8,))
IMAGES, CLASSES = torch.randn(7, 4, dtype=torch.float64), torch.randint(0, 3, (7,))
FORGET = torch.tensor([False, True, False, False, True, False, True])
BATCH = Batch(IMAGES, CLASSES, tags={"forgotten": FORGET})


@pytest.mark.parametrize(("saturation", "importance"), [(5.0, 0.1), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_weights_are_powers_of_the_probability_and_its_complement(saturation, importance):
    found = satimp_weights(LOGITS.clone().requires_grad_(), LABELS, saturation, importance)
    for logits, label, weight in zip(LOGITS, LABELS, found, strict=True):
        p = logits.exp()[label] / logits.exp().sum()
        torch.testing.assert_close(weight, p**saturation * (1 - p) ** importance)
    assert not found.requires_grad


def satimp(**options) -> Satimp:
    torch.manual_seed(1)
    defaults = {"saturation": 5.0, "importance": 0.1, "retain_weight": 0.1, "epochs": 1, "lr": 1e-3}
    return Satimp(nn.Linear(4, 3).double(), **defaults | {"weight_decay": 0.0} | options)


def test_gradient_is_that_of_the_loss_with_constant_weights():
    method = satimp()
    found = torch.autograd.grad(method.loss(BATCH), method.model.weight)[0]
    logits = method.model(IMAGES)
    losses = F.cross_entropy(logits, CLASSES, reduction="none")
    p = (-losses).exp().detach()
    weights = p**5 * (1 - p) ** 0.1
    expected = 0.1 * losses[~FORGET].mean() - (weights * losses)[FORGET].mean()
    torch.testing.assert_close(method.loss(BATCH), expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, method.model.weight)[0])


def test_without_exponents_and_retained_loss_it_is_gradient_ascent():
    method = satimp(saturation=0.0, importance=0.0, retain_weight=0.0)
    expected = -F.cross_entropy(method.model(IMAGES[FORGET]), CLASSES[FORGET])
    torch.testing.assert_close(method.loss(BATCH), expected)


def test_a_sample_of_which_single_precision_is_sure_still_has_a_weight():
    logits = torch.tensor([[40.0, 0.0, 0.0]])
    assert 1 - logits.softmax(1)[0, 0] == 0
    weight = satimp_weights(logits, torch.tensor([0]), 5.0, 0.1)
    torch.testing.assert_close(weight, (2 * torch.tensor([-40.0]).exp()) ** 0.1)
