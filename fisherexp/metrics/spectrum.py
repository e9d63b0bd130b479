"""Power spectra of images: how much variance each spatial frequency carries, and how far two spectra are apart.

Frequencies are integers in the order of torch.fft.fftfreq; transforms are orthonormal, so white noise of variance 1 has
the spectrum 1.
"""

import torch
from torch import Tensor


def radial_frequency(height: int, width: int) -> Tensor:
    """|f| of every frequency, (H, W), float64, in cycles per image."""
    down, across = (torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) for n in (height, width))
    return torch.hypot(down[:, None], across)


def power_spectrum(images: Tensor) -> Tensor:
    """Mean of |FFT|² over images and channels: (B, C, H, W) -> (H, W), float64. The images' mean is not removed."""
    return torch.fft.fft2(images.double(), norm="ortho").abs().square().mean((0, 1))


def radial_average(spectrum: Tensor) -> Tensor:
    """Each entry of a spectrum (H, W) becomes the mean over all frequencies whose |f| rounds to the same integer."""
    shell = radial_frequency(*spectrum.shape).round().long()
    count = torch.bincount(shell.flatten())
    total = torch.zeros(len(count), dtype=spectrum.dtype).index_add_(0, shell.flatten(), spectrum.flatten())
    return (total / count.clamp(min=1))[shell]


def fisher_rao_distance(spectrum: Tensor, other: Tensor) -> Tensor:
    """√(½ Σ_f (log S_f - log S'_f)²), the geodesic distance of the Gaussians N(0, S) and N(0, S'); (…, H, W) -> (…).

    Raises ValueError unless both are positive everywhere.
    """
    if min(spectrum.min(), other.min()) <= 0:
        raise ValueError(
            "a spectrum with an entry that is not positive has no distance to another: add noise to it first"
        )
    return (0.5 * (spectrum.log() - other.log()).square().sum((-2, -1))).sqrt()


def path_length(spectra: Tensor) -> float:
    """Sum of the Fisher-Rao distances from each spectrum to the next; (T, H, W)."""
    return fisher_rao_distance(spectra[1:], spectra[:-1]).sum().item()
