"""The U-Net: shapes, that time and every weight matter, and its refusals."""

import math

import pytest
import torch

from fisherexp.models.unet import UNet, time_embedding
from fisherexp.seeds import generator


@pytest.mark.parametrize("input_shape", [(1, 8, 8), (3, 6, 10)])
def test_noise_has_the_shape_of_the_images_and_is_zero_at_first(input_shape):
    network = UNet(8, 2, input_shape=input_shape)
    images, time = torch.randn(2, *input_shape, generator=generator("x")), torch.tensor([0.0, 990.0])
    found = network(images, time)
    assert found.shape == images.shape
    assert not found.any()


def test_every_weight_takes_part_and_time_changes_the_answer():
    torch.manual_seed(0)
    network = UNet(8, input_shape=(1, 8, 8))
    for parameter in network.parameters():  # away from the zeros it begins with
        torch.nn.init.normal_(parameter, std=0.3)
    images = torch.randn(2, 1, 8, 8, generator=generator("x"))
    network(images, torch.tensor([3.0, 700.0])).square().sum().backward()
    assert all(parameter.grad.any() for parameter in network.parameters())
    early, late = (network(images, torch.full((2,), time)) for time in (3.0, 700.0))
    assert (early - late).abs().max() > 1e-3


def test_time_embedding_by_the_definition():
    found = time_embedding(torch.tensor([5.0]), 6)[0].tolist()
    rates = [10_000 ** (-i / 3) for i in range(3)]
    assert found == pytest.approx([math.cos(5 * r) for r in rates] + [math.sin(5 * r) for r in rates], abs=1e-5)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"multiple of 8, e\.g\. 16"):
        UNet(12, input_shape=(1, 8, 8))
    with pytest.raises(ValueError, match="even height and width"):
        UNet(8, input_shape=(1, 7, 8))
