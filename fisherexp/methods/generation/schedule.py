"""How a diffusion model corrupts images: what share of each spatial frequency is still signal after each step.

    û_t = √ᾱ_t(f) û_0 + √(1 - ᾱ_t(f)) ε̂,   û = FFT of the image, ε white noise of its pixels

With the same ᾱ_t for all frequencies this is the diffusion of Ho et al., NeurIPS 2020, arXiv 2006.11239.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# The largest β of a step, as in Nichol and Dhariwal's code: at 1 nothing of the image would be left to divide by.
LARGEST_BETA = 0.999


@dataclass(frozen=True)
class Schedule:
    """alpha_bar, beta: (T, H, W) or (T, 1, 1), float64; row i is step t = i + 1. β_t = 1 - ᾱ_t/ᾱ_{t-1} with ᾱ_0 = 1."""

    alpha_bar: Tensor
    beta: Tensor

    @classmethod
    def of_alpha_bar(cls, alpha_bar: Tensor) -> "Schedule":
        """From the ᾱ that are meant, (T, H, W): β is cut at LARGEST_BETA, and ᾱ is what then comes of it.

        Raises ValueError unless 1 ≥ ᾱ_1 ≥ … ≥ ᾱ_T ≥ 0, and unless ᾱ(-f) = ᾱ(f): else images would turn complex.
        """
        alpha_bar = alpha_bar.double()
        before = torch.cat([torch.ones_like(alpha_bar[:1]), alpha_bar[:-1]])
        if (alpha_bar > before).any() or alpha_bar.min() < 0:
            raise ValueError("the share of signal must fall from step to step, within [0, 1]")
        mirrored = alpha_bar.flip(-2, -1).roll((1, 1), (-2, -1))
        if not torch.allclose(mirrored, alpha_bar, rtol=1e-12, atol=0):
            raise ValueError("the schedule must be the same for the frequencies f and -f: images are real")
        beta = (1 - alpha_bar / before).clamp(max=LARGEST_BETA)
        return cls((1 - beta).cumprod(0), beta)

    @property
    def steps(self) -> int:
        """T."""
        return len(self.beta)

    def spectra(self, spectrum: Tensor) -> Tensor:
        """Power spectra of the corrupted images, ᾱ_t D + 1 - ᾱ_t, of images with the spectrum D (H, W) -> (T, H, W)."""
        return self.alpha_bar * spectrum + 1 - self.alpha_bar


def filtered(images: Tensor, gains: Tensor) -> Tensor:
    """Each frequency of real images (B, C, H, W) times its gain (…, H, W) or (…, 1, 1), which must be real and even."""
    if gains.shape[-2:] == (1, 1):
        return images * gains
    width = images.shape[-1]
    half = gains[..., : width // 2 + 1]
    return torch.fft.irfft2(torch.fft.rfft2(images) * half, s=images.shape[-2:])
