"""Corruption, loss and sampling, on Gaussian images whose best predictor is known, and against plain DDPM."""

import pytest
import torch

from fisherexp.methods.generation.ddpm import cosine, linear
from fisherexp.methods.generation.diffusion import (
    ancestral_step,
    clipped_noise,
    corrupt,
    deterministic_step,
    noise_loss,
    sample,
    scaled_time,
)
from fisherexp.methods.generation.schedule import Schedule, filtered
from fisherexp.methods.generation.shortest_path_diffusion import CIFAR10_FIT, power_law, shortest_path
from fisherexp.metrics.spectrum import fisher_rao_distance, power_spectrum
from fisherexp.seeds import generator

SPECTRUM = power_law(8, 8, **CIFAR10_FIT | {"offset": 0.5})
SCHEDULES = {
    "shortest path": lambda: shortest_path(SPECTRUM, 40, "paper"),
    "official grid": lambda: shortest_path(SPECTRUM, 40, "official"),
    "cosine": lambda: cosine(40),
    "linear": lambda: linear(40),
}


def randn(*shape, name="noise", dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=generator(name))


def gaussian_images(count, name="images"):
    return filtered(randn(count, 1, 8, 8, name=name), SPECTRUM.sqrt())


def best_predictor(schedule):
    """E[ε | x_t] for images N(0, D): √(1 - ᾱ)/(ᾱ D + 1 - ᾱ) in every frequency. No network can do better."""

    gains = (1 - schedule.alpha_bar).sqrt() / schedule.spectra(SPECTRUM)

    def network(images, time):
        return filtered(images, gains[int((time[0] * schedule.steps / 1000).round())].to(images))

    return network


@pytest.fixture(params=SCHEDULES)
def schedule(request) -> Schedule:
    return SCHEDULES[request.param]()


def test_corrupted_images_have_the_schedules_spectrum(schedule):
    images, noise = gaussian_images(4000), randn(4000, 1, 8, 8)
    for row in (0, 20, 39):
        found = power_spectrum(corrupt(schedule, images, torch.full((4000,), row), noise))
        torch.testing.assert_close(found, schedule.spectra(SPECTRUM)[row], rtol=5 * 2**0.5 / 4000**0.5, atol=0)


def test_each_image_is_corrupted_by_its_own_step(schedule):
    images, noise, rows = gaussian_images(3), randn(3, 1, 8, 8), torch.tensor([5, 0, 30])
    together = corrupt(schedule, images, rows, noise)
    for i in range(3):
        alone = corrupt(schedule, images[i, None], rows[i, None], noise[i, None])
        torch.testing.assert_close(together[i, None], alone)
        transform = schedule.alpha_bar[rows[i]].sqrt() * torch.fft.fft2(images[i])
        transform = transform + (1 - schedule.alpha_bar[rows[i]]).sqrt() * torch.fft.fft2(noise[i])
        whole = torch.fft.ifft2(transform)
        assert whole.imag.abs().max() < 1e-6
        torch.testing.assert_close(alone[0], whole.real)


def test_loss_is_the_error_of_the_noise_and_least_for_the_best_predictor(schedule):
    images, rows = gaussian_images(2000), torch.randint(40, (2000,), generator=generator("loss"))
    draw = generator("loss")
    torch.randint(40, (2000,), generator=draw)
    noise = torch.randn(images.shape, dtype=images.dtype, generator=draw)

    def known(corrupted, time):
        torch.testing.assert_close(corrupted, corrupt(schedule, images, rows, noise))
        torch.testing.assert_close(time, scaled_time(schedule, rows).double())
        return noise + 2

    assert noise_loss(known, schedule, images, generator("loss")).item() == pytest.approx(4)
    gain = (1 - schedule.alpha_bar).sqrt() / schedule.spectra(SPECTRUM)

    def scaled(by):
        return lambda x, time: by * filtered(x, gain[rows, None])

    loss = {by: noise_loss(scaled(by), schedule, images, generator("loss")).item() for by in (0.9, 1.0, 1.1)}
    assert loss[1.0] < min(loss[0.9], loss[1.1])
    unexplained = (schedule.alpha_bar * SPECTRUM / schedule.spectra(SPECTRUM)).mean((1, 2))[rows].mean().item()
    assert loss[1.0] == pytest.approx(unexplained, rel=0.03)


@pytest.mark.parametrize("deterministic", [False, True])
def test_with_the_best_predictor_samples_have_the_spectrum_of_the_images(deterministic):
    """What remains is the scatter of 500 images and of finitely many steps. The control predicts no noise at all."""
    far = fisher_rao_distance(SPECTRUM, torch.ones_like(SPECTRUM)).item()
    for fine in (shortest_path(SPECTRUM, 100), cosine(100)):
        images = sample(best_predictor(fine), fine, (500, 1, 8, 8), generator("samples"), deterministic)
        assert fisher_rao_distance(power_spectrum(images), SPECTRUM).item() < 0.05 * far
    nothing = sample(
        lambda x, time: torch.zeros_like(x), shortest_path(SPECTRUM, 40), (300, 1, 8, 8), generator("none")
    )
    assert fisher_rao_distance(power_spectrum(nothing), SPECTRUM).item() > 0.3 * far


def test_with_one_speed_for_all_frequencies_a_step_is_ddpms():
    schedule, row = cosine(40), 17
    images, noise, fresh = (randn(2, 1, 8, 8, name=name) for name in ("x", "eps", "z"))
    beta, bar = schedule.beta[row].item(), schedule.alpha_bar[row].item()
    expected = (images - beta / (1 - bar) ** 0.5 * noise) / (1 - beta) ** 0.5 + beta**0.5 * fresh
    torch.testing.assert_close(ancestral_step(schedule, images, noise, row, fresh), expected)
    before = schedule.alpha_bar[row - 1].item()
    clean = (images - (1 - bar) ** 0.5 * noise) / bar**0.5
    expected = before**0.5 * clean + (1 - before) ** 0.5 * noise
    torch.testing.assert_close(deterministic_step(schedule, images, noise, row, fresh), expected)
    spread = Schedule(*(v.expand(-1, 8, 8).contiguous() for v in (schedule.alpha_bar, schedule.beta)))
    for step in (ancestral_step, deterministic_step):
        torch.testing.assert_close(
            step(spread, images, noise, row, fresh), step(schedule, images, noise, row, fresh), rtol=1e-10, atol=1e-12
        )


def test_deterministic_steps_undo_the_corruption_if_the_noise_is_known(schedule):
    images, noise = gaussian_images(2), randn(2, 1, 8, 8)
    corrupted = corrupt(schedule, images, torch.full((2,), 20), noise)
    for row in reversed(range(21)):
        corrupted = deterministic_step(schedule, corrupted, noise, row, noise)
    torch.testing.assert_close(corrupted, images, rtol=1e-8, atol=1e-8)


def test_clipping_changes_only_what_leaves_the_range(schedule):
    noise = randn(2, 1, 8, 8)
    inside = gaussian_images(2).clamp(-0.99, 0.99)
    corrupted = corrupt(schedule, inside, torch.full((2,), 20), noise)
    torch.testing.assert_close(clipped_noise(schedule, corrupted, noise, 20), noise, rtol=1e-7, atol=1e-9)
    outside = corrupt(schedule, 3 * torch.ones_like(inside), torch.full((2,), 20), noise)
    implied = clipped_noise(schedule, outside, noise, 20)
    edge = corrupt(schedule, torch.ones_like(inside), torch.full((2,), 20), implied)
    torch.testing.assert_close(edge, outside, rtol=1e-7, atol=1e-9)
    assert (implied - noise).abs().max() > 0.01


def test_samples_are_a_function_of_the_generator(schedule):
    drawn = [
        sample(best_predictor(schedule), schedule, (2, 1, 8, 8), generator("draw", seed), deterministic)
        for seed, deterministic in [(0, False), (0, False), (1, False), (0, True)]
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])
