"""Plain training: the gradient of its loss, with and without weights of samples."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.data.batch import Batch
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM

torch.manual_seed(0)
INPUTS, LABELS = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])


@pytest.mark.parametrize("weights", [None, [1.0, 1.0, 1.0, 1.0, 1.0], [2.0, 0.0, 1.0, 0.5, 3.0]])
def test_a_sample_counts_by_its_weight(weights):
    method = ERM(nn.Linear(4, 3).double(), Recipe())
    given = None if weights is None else torch.tensor(weights)
    (found,) = torch.autograd.grad(method.loss(Batch(INPUTS, LABELS, given)), [method.model.weight])
    expected, shares = 0.0, torch.tensor(weights or [1.0] * 5, dtype=torch.float64)
    for x, y, share in zip(INPUTS, LABELS, shares / shares.sum(), strict=True):
        loss = F.cross_entropy(method.model(x[None]), y[None])
        expected = expected + share * torch.autograd.grad(loss, method.model.weight)[0]
    torch.testing.assert_close(found, expected)
