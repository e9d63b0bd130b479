"""Spectra against the definition written with loops, Parseval's identity and closed forms."""

import cmath
import math

import pytest
import torch

from fisherexp.metrics.spectrum import (
    fisher_rao_distance,
    path_length,
    power_spectrum,
    radial_average,
    radial_frequency,
)
from fisherexp.seeds import generator


def test_power_spectrum_by_the_definition():
    images = torch.randn(3, 2, 4, 5, dtype=torch.float64, generator=generator("images"))
    found = power_spectrum(images)
    for u in range(4):
        for v in range(5):
            waves = [[cmath.exp(-2j * math.pi * (u * y / 4 + v * x / 5)) for x in range(5)] for y in range(4)]
            wave = torch.tensor(waves, dtype=torch.complex128)
            power = ((images * wave).sum((2, 3)) / 20**0.5).abs().square().mean()
            assert found[u, v].item() == pytest.approx(power.item())
    assert found.sum().item() == pytest.approx(images.square().sum((2, 3)).mean().item())  # Parseval
    assert found[0, 0].item() == pytest.approx(20 * images.mean((2, 3)).square().mean().item())  # the mean stays in


def test_shells():
    frequency = radial_frequency(4, 6)
    assert frequency[0].tolist() == [0, 1, 2, 3, 2, 1]
    assert frequency[1, 2].item() == frequency[3, 4].item() == pytest.approx(5**0.5)
    spectrum = torch.rand(4, 6, dtype=torch.float64, generator=generator("spectrum"))
    found = radial_average(spectrum)
    for shell in range(4):
        member = frequency.round() == shell
        torch.testing.assert_close(found[member], spectrum[member].mean().expand(int(member.sum())))
    assert found.sum().item() == pytest.approx(spectrum.sum().item())


def test_fisher_rao_distance_of_gaussians_and_the_length_of_a_path():
    spectrum = torch.rand(3, 3, dtype=torch.float64, generator=generator("spectrum")) + 0.1
    white = torch.ones_like(spectrum)
    expected = math.sqrt(0.5 * sum(math.log(v) ** 2 for v in spectrum.flatten().tolist()))
    assert fisher_rao_distance(spectrum, white).item() == pytest.approx(expected)
    geodesic = torch.stack([spectrum**t for t in torch.linspace(1, 0, 7).tolist()])
    straight = torch.stack([spectrum + t * (white - spectrum) for t in torch.linspace(0, 1, 7).tolist()])
    assert path_length(geodesic) == pytest.approx(expected)
    assert path_length(straight) > expected * 1.001
    with pytest.raises(ValueError, match="not positive"):
        fisher_rao_distance(0 * spectrum, white)
