"""What the classes of diffusion make of their options: gradient of a step, and samples, from the pure functions."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.data.batch import Batch
from fisherexp.data.tensors import TensorSet
from fisherexp.methods.generation.ddpm import DDPM, cosine, linear
from fisherexp.methods.generation.diffusion import corrupt, sample
from fisherexp.methods.generation.shortest_path_diffusion import ShortestPathDiffusion, data_spectrum, shortest_path
from fisherexp.methods.recipe import Recipe
from fisherexp.seeds import generator

IMAGES = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    input_shape = (1, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, images, time):
        return torch.tanh(self.conv(images)) + time.view(-1, 1, 1, 1) / 1000


@pytest.mark.parametrize(("name", "schedule"), [("cosine", cosine(5)), ("linear", linear(5))])
def test_a_step_predicts_the_noise_in_images_from_minus_one_to_one(name, schedule):
    method, plain = DDPM(Net(), Recipe(epochs=1), schedule=name, steps=5), Net()
    torch.manual_seed(7)
    loss = method.training_step(Batch(IMAGES, torch.zeros(6)), 0)
    torch.manual_seed(7)
    rows, noise = torch.randint(5, (6,)), torch.randn(IMAGES.shape)
    seen = plain(corrupt(schedule, IMAGES / 127.5 - 1, rows, noise), rows * 200.0)
    found, expected = (
        torch.autograd.grad(value, list(net.parameters()))
        for value, net in ((loss, method.model), (F.mse_loss(seen, noise), plain))
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_samples_take_the_steps_back_that_are_asked_for(clip, deterministic):
    method, plain = DDPM(Net(), Recipe(epochs=1), steps=5, clip=clip, deterministic=deterministic), Net()
    found = method.sample(3, generator("samples"))
    options = {"deterministic": deterministic, "clip": clip}
    assert torch.equal(found, sample(plain, cosine(5), (3, 1, 8, 8), generator("samples"), **options))
    options["clip"] = not clip  # the control
    assert not torch.equal(found, sample(plain, cosine(5), (3, 1, 8, 8), generator("samples"), **options))


@pytest.mark.parametrize(("grid", "floor"), [("official", 1e-3), ("paper", 1e-3), ("official", 0.5)])
def test_the_spectrum_goes_with_the_weights_and_with_their_average(grid, floor):
    method = ShortestPathDiffusion(Net(), Recipe(epochs=1), grid=grid, floor=floor, steps=5)
    parts, data = {"train": TensorSet(IMAGES, torch.zeros(6))}, SimpleNamespace(batch_size=4)
    method.batches(SimpleNamespace(parts=parts, data=data, loader=lambda *_, **__: []))
    spectrum = data_spectrum(IMAGES / 127.5 - 1, floor)
    for model in (method.model, method.averaged.module):
        torch.testing.assert_close(model.spectrum, spectrum)
    torch.testing.assert_close(method.schedule.beta, shortest_path(spectrum, 5, grid).beta)
