"""Memory aware synapses: sensitivities against one backward pass per image, and a closed form."""

import pytest
import torch
from torch import nn

from fisherexp.data.batch import Batch
from fisherexp.methods.continual_learning.mas import sensitivities

torch.manual_seed(0)
IMAGES = torch.randn(12, 6).double()
BATCHES = [Batch(IMAGES[:5], torch.zeros(5)), Batch(IMAGES[5:], torch.zeros(7))]
NET = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.BatchNorm1d(7), nn.Linear(7, 3)).double().eval()


def gradient(images):
    NET.zero_grad()
    NET(images).square().sum(1).mean().backward()
    return {name: p.grad.clone() for name, p in NET.named_parameters()}


@pytest.mark.parametrize("per_sample", [True, False])
def test_against_autograd(per_sample):
    found = sensitivities(NET, BATCHES, per_sample)
    assert found.pop("samples") == 12
    pieces = [image[None] for image in IMAGES] if per_sample else [batch.inputs for batch in BATCHES]
    for name, total in found.items():
        torch.testing.assert_close(total, sum(len(piece) * gradient(piece)[name].abs() for piece in pieces))


def test_batch_means_are_never_larger():
    each, mean = (sensitivities(NET, BATCHES, per_sample) for per_sample in (True, False))
    assert all((mean[name] <= each[name] + 1e-12).all() for name in each)
    assert any((mean[name] < 0.9 * each[name]).any() for name in each)


def test_linear_model_in_closed_form():
    """∂ ||Wx||² / ∂W = 2 W x xᵀ."""
    linear = nn.Linear(6, 3, bias=False).double()
    expected = 2 * torch.einsum("no,ni->noi", linear(IMAGES), IMAGES).abs().sum(0).detach()
    torch.testing.assert_close(sensitivities(linear, BATCHES, True)["weight"], expected)


def test_frozen_parameters_have_none():
    linear = nn.Linear(6, 3).double()
    linear.bias.requires_grad_(False)
    assert set(sensitivities(linear, BATCHES, True)) == {"weight", "samples"}
