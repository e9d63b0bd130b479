"""Small-scale proof on the 8×8 digits: a network trained along the shortest path, and one along the cosine schedule.

The same network, steps and batches; three seeds. Predicted images are cut to [-1, 1] as the authors of each do: with
the cosine schedule, not along the shortest path. Measured on as many samples as there are held-out digits: the
Fisher-Rao distance of radially averaged spectra, and the Fréchet distance in the hidden layer of a small classifier of
the training digits. Controls: the training digits themselves, and white noise of the digits' mean and deviation.
"""

import statistics

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fisherexp.methods.generation.ddpm import cosine
from fisherexp.methods.generation.diffusion import noise_loss, sample
from fisherexp.methods.generation.shortest_path_diffusion import data_spectrum, shortest_path
from fisherexp.metrics.frechet import frechet_distance
from fisherexp.metrics.spectrum import fisher_rao_distance, power_spectrum, radial_average
from fisherexp.models.unet import UNet
from fisherexp.seeds import generator

pytestmark = pytest.mark.proof
SEEDS = (0, 1, 2)
STEPS, UPDATES, BATCH, LR, DECAY = 50, 400, 32, 2e-3, 0.98


@pytest.fixture(scope="module")
def digits():
    """(training, held-out) images in [-1, 1] and the training labels."""
    bunch = load_digits()
    images, labels = torch.from_numpy(bunch.images).float()[:, None] / 8 - 1, torch.from_numpy(bunch.target)
    return images[:1200], images[1200:], labels[:1200]


@pytest.fixture(scope="module")
def features(digits):
    """The hidden layer of a classifier of the training digits."""
    train, _, labels = digits
    torch.manual_seed(0)
    hidden, head = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU()), nn.Linear(32, 10)
    optimizer = torch.optim.Adam([*hidden.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(head(hidden(train)), labels).backward()
        optimizer.step()
    return hidden.requires_grad_(False)


def trained(schedule, images, seed):
    torch.manual_seed(seed)
    network, draw = UNet(16, input_shape=(1, 8, 8)), generator("training", seed)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    optimizer = torch.optim.Adam(network.parameters(), LR)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=UPDATES)
    for _ in range(UPDATES):
        batch = images[torch.randint(len(images), (BATCH,), generator=draw)]
        optimizer.zero_grad()
        noise_loss(network, schedule, batch, draw).backward()
        optimizer.step()
        rate.step()
        average.update_parameters(network)
    return average.eval()


@pytest.fixture(scope="module")
def measured(digits, features):
    """(spectrum error, Fréchet distance): means over seeds of each schedule, and of the controls."""
    train, held_out, _ = digits

    def of(images):
        spectra = [radial_average(power_spectrum(some)) for some in (images, held_out)]
        return fisher_rao_distance(*spectra).item(), frechet_distance(features(images), features(held_out))

    noise = held_out.mean() + held_out.std() * torch.randn(held_out.shape, generator=generator("noise"))
    found = {"digits": of(train), "noise": of(noise)}
    shortest = shortest_path(data_spectrum(train, 1e-3), STEPS)
    for name, schedule, clip in [("shortest", shortest, False), ("cosine", cosine(STEPS), True)]:
        runs = []
        for seed in SEEDS:
            network = trained(schedule, train, seed)
            runs.append(of(sample(network, schedule, tuple(held_out.shape), generator("samples", seed), clip=clip)))
            print(name, seed, runs[-1], flush=True)
        found[name] = tuple(statistics.fmean(values) for values in zip(*runs, strict=True))
    print({name: [round(value, 3) for value in values] for name, values in found.items()})
    return found


def test_the_shortest_path_keeps_the_spectrum_better(measured):
    spectrum = {name: values[0] for name, values in measured.items()}
    assert spectrum["shortest"] <= spectrum["cosine"]
    assert spectrum["digits"] < spectrum["shortest"] < 0.5 * spectrum["noise"]


def test_samples_of_both_are_nearer_to_digits_than_noise_is(measured):
    distance = {name: values[1] for name, values in measured.items()}
    assert distance["digits"] < min(distance["shortest"], distance["cosine"])
    assert max(distance["shortest"], distance["cosine"]) < 0.5 * distance["noise"]
