"""Schedules: the geodesic's identities, the published lengths, and what a schedule must be."""

import math

import numpy as np
import pytest
import torch

from fisherexp.methods.generation.ddpm import cosine, linear
from fisherexp.methods.generation.schedule import LARGEST_BETA, Schedule, filtered
from fisherexp.methods.generation.shortest_path_diffusion import (
    CIFAR10_FIT,
    data_spectrum,
    power_law,
    remaining,
    shortest_path,
)
from fisherexp.metrics.spectrum import fisher_rao_distance, path_length, radial_frequency
from fisherexp.seeds import generator

CIFAR10 = power_law(32, 32, **CIFAR10_FIT)
WHITE = torch.ones_like(CIFAR10)


def whole_path(spectrum, schedule):
    return torch.cat([spectrum[None], schedule.spectra(spectrum)])


def test_the_fit_at_frequency_zero_is_finite_and_its_distance_to_white_noise_is_the_published_one():
    assert CIFAR10[0, 0].item() == pytest.approx(2.15e4, rel=1e-3)
    assert fisher_rao_distance(CIFAR10, WHITE).item() == pytest.approx(101.296, abs=5e-4)


@pytest.mark.parametrize("grid", ["paper", "official"])
@pytest.mark.parametrize("steps", [20, 100])
def test_corrupted_spectra_are_the_geodesics(grid, steps):
    schedule, tau = shortest_path(CIFAR10, steps, grid), remaining(steps, grid)
    uncut = slice(None, -1) if grid == "paper" else slice(None)  # the last β of the paper's grid would be 1
    expected = CIFAR10 ** tau[:, None, None]
    torch.testing.assert_close(schedule.spectra(CIFAR10)[uncut], expected[uncut], rtol=1e-9, atol=0)
    assert (schedule.beta[uncut] < LARGEST_BETA).all()
    assert schedule.alpha_bar.isfinite().all()


@pytest.mark.parametrize(("steps", "tolerance"), [(20, 1e-4), (100, 1e-4), (1000, 1e-3)])
def test_on_the_authors_grid_the_shares_are_theirs_up_to_their_single_precision(steps, tolerance):
    times = np.linspace(1, steps - 1, steps, dtype=np.float32)[:, None, None]
    spectrum = CIFAR10.numpy().astype(np.float32)
    theirs = (1 - spectrum ** ((steps - times) / np.float32(steps))) / (1 - spectrum)
    found = shortest_path(CIFAR10, steps, "official").alpha_bar.numpy()
    np.testing.assert_allclose(found, theirs, rtol=0, atol=tolerance)


def test_grids():
    with pytest.raises(ValueError, match="neither 'paper' nor 'official'"):
        remaining(4, "oficial")
    assert remaining(4, "paper").tolist() == [0.75, 0.5, 0.25, 0]
    found = remaining(100, "official")
    assert (found[0].item(), found[-1].item()) == pytest.approx((0.99, 0.01))
    assert (found[:-1] - found[1:]).unique().tolist() == pytest.approx(
        [0.98 / 99] * len((found[:-1] - found[1:]).unique())
    )
    assert (shortest_path(CIFAR10, 100, "paper").beta[-1] == LARGEST_BETA).all()


def test_the_shortest_path_is_shortest_and_the_others_have_their_published_lengths():
    """Along a path that is fine enough; the lengths of the DDPM schedules are those of the whole path they take."""
    shortest = path_length(whole_path(CIFAR10, shortest_path(CIFAR10, 1000, "official")))
    end = fisher_rao_distance(shortest_path(CIFAR10, 1000, "official").spectra(CIFAR10)[-1], WHITE).item()
    assert shortest + end == pytest.approx(fisher_rao_distance(CIFAR10, WHITE).item(), rel=1e-9)
    of_linear, of_cosine = linear(1000), cosine(1000)
    assert path_length(whole_path(CIFAR10, of_linear)) == pytest.approx(106.193, abs=0.05)
    assert path_length(whole_path(CIFAR10, of_cosine)) == pytest.approx(106.635, abs=0.05)
    assert fisher_rao_distance(of_linear.spectra(CIFAR10)[-1], WHITE).item() == pytest.approx(0.442, abs=0.01)


def test_strong_frequencies_lose_more_and_still_stand_out_longest_and_equal_ones_fade_alike():
    schedule = shortest_path(CIFAR10, 100, "paper")
    assert (schedule.alpha_bar[1:] <= schedule.alpha_bar[:-1]).all()
    share, power = schedule.alpha_bar[50, 0, :17], CIFAR10[0, :17]  # the frequencies 0, 1, …, 16
    assert (share.diff() > 0).all()
    assert (share * power / (1 - share)).diff().max() < 0
    flat = shortest_path(torch.full((4, 4), 0.3, dtype=torch.float64), 10).alpha_bar
    torch.testing.assert_close(flat, flat[:, :1, :1].expand_as(flat), rtol=0, atol=0)


def test_a_frequency_as_strong_as_noise_fades_linearly():
    near = torch.tensor([1 - 1e-9, 1.0, 1 + 1e-9], dtype=torch.float64)
    for value in near:
        found = shortest_path(value.expand(2, 2), 10, "paper").alpha_bar[:-1, 0, 0]
        torch.testing.assert_close(found, remaining(10, "paper")[:-1], rtol=1e-6, atol=0)


def test_ddpm_schedules_by_their_formulas():
    found = cosine(50)
    phi = [math.cos(math.pi / 2 * (t / 50 + 0.008) / 1.008) ** 2 for t in range(51)]
    assert found.alpha_bar[:-1].flatten().tolist() == pytest.approx([p / phi[0] for p in phi[1:-1]])
    assert found.beta[-1].item() == LARGEST_BETA
    usual = linear(1000)
    assert (usual.beta[0].item(), usual.beta[-1].item()) == pytest.approx((1e-4, 0.02))
    assert usual.alpha_bar[-1].item() == pytest.approx(4.0358e-5, rel=1e-3)
    assert linear(100).beta[-1].item() == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("alpha_bar", "message"),
    [
        ([[[0.5]], [[0.6]]], "must fall"),
        ([[[1.1]]], "must fall"),
        ([[[0.5]], [[-0.1]]], "must fall"),
        ([[[0.9, 0.8, 0.7]]], "f and -f"),
    ],
)
def test_what_is_no_schedule_is_refused(alpha_bar, message):
    with pytest.raises(ValueError, match=message):
        Schedule.of_alpha_bar(torch.tensor(alpha_bar))


@pytest.mark.parametrize("shape", [(4, 6), (5, 7)])
def test_filtering_is_multiplication_of_the_whole_transform(shape):
    images = torch.randn(2, 3, *shape, dtype=torch.float64, generator=generator("images"))
    gains = radial_frequency(*shape) + 0.5
    full = torch.fft.ifft2(torch.fft.fft2(images) * gains)
    assert full.imag.abs().max() < 1e-12
    torch.testing.assert_close(filtered(images, gains), full.real)
    torch.testing.assert_close(filtered(images, torch.full((1, 1), 0.3)), 0.3 * images)


def test_spectrum_of_data_has_a_floor_and_is_radial():
    images = torch.randn(20, 3, 8, 8, generator=generator("data"))
    found = data_spectrum(images, floor=1e-3)
    assert found[0, 1].item() == found[1, 0].item() == found[0, 7].item()
    assert data_spectrum(0 * images, floor=1e-3).unique().item() == 1e-3
