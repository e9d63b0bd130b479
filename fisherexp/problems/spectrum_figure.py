"""Power spectra by frequency, as a figure."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fisherexp.figures import BLUE, GRAY, GREEN, ORANGE, canvas, save_both
from fisherexp.metrics.spectrum import radial_frequency


def shells(spectrum: Tensor) -> tuple[Tensor, Tensor]:
    """Frequencies 0, 1, … in cycles per image, and the mean power of all that round to each; spectrum (H, W)."""
    shell = radial_frequency(*spectrum.shape).round().long().flatten()
    count = torch.bincount(shell)
    total = torch.zeros(len(count), dtype=spectrum.dtype).index_add_(0, shell, spectrum.flatten())
    met = count > 0
    return torch.arange(len(count))[met], (total / count.clamp(min=1))[met]


def draw_spectra(spectra: Mapping[str, Tensor], stem: Path) -> None:
    """Write `stem`.png and .pdf: name -> power spectrum (H, W), at most four, radially averaged."""
    figure, axes = canvas(1, 1, (4.6, 3.4))
    for (name, spectrum), color in zip(spectra.items(), (GRAY, BLUE, ORANGE, GREEN), strict=False):
        frequency, power = shells(spectrum)
        axes.plot(frequency.tolist(), power.tolist(), color=color, marker=".", label=name)
    axes.set(xlabel="frequency (cycles per image)", ylabel="power", yscale="log")
    axes.legend(frameon=False)
    save_both(figure, stem)
