"""WINNER: a SIREN whose first two layers begin with noise, the more the higher the frequencies of the signal.

    W_1 ← W_1 + N(0, (s_0/ω)²),   W_2 ← W_2 + N(0, (s_1/ω)²),   ω = 30
    sounds:  s_0 = 3500 (1 - e^{-7ψ}),  s_1 = 3 ψ;     images:  s_0 = 50 (1 - e^{-5ψ}),  s_1 = 0.4 ψ

arXiv 2509.09719, as in the authors' code; ψ is the centroid of the signal's spectrum, see `spectral_centroid`. A plain
SIREN stays at zero where a signal has high frequencies only. s_0 is a frequency per unit of the coordinates, so the
published numbers belong to signals as long as theirs; scale=sampling has s_0 = π (n/2) ψ for n samples along an axis,
which is ours.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from fisherexp.methods.training.siren import SirenFit
from fisherexp.models.siren import Siren

OMEGA = 30.0


def spectral_centroid(signal: Tensor, official: bool = False) -> float:
    """ψ = 2 Σ f|ŷ| / Σ|ŷ| of a signal (*grid, channels), f in cycles per sample: 0 for silence, 1 for the highest
    frequency, about 1/2 for white noise. Mean over channels, divided by their number; over the lines along an axis; and
    over the axes. The mean of the signal is left out.

    official: as the authors' code has it. The mean stays in, two-dimensional signals are read along their second axis
    only, and it is divided by the number of channels twice.
    """
    *grid, channels = signal.shape
    if not official:
        signal = signal - signal.flatten(0, -2).mean(0)
    axes = [1] if official and len(grid) == 2 else range(len(grid))
    found = [_centroids(signal.movedim(axis, -1)).mean() for axis in axes]
    return float(torch.stack(found).mean()) / channels ** (2 if official else 1)


def _centroids(lines: Tensor) -> Tensor:
    """Of lines along the last axis, shape (…, n) to (…); 0 where there is nothing."""
    size = torch.fft.rfft(lines.double()).abs()
    frequency = torch.fft.rfftfreq(lines.shape[-1]).to(size)
    total = size.sum(-1)
    return torch.where(total > 1e-9, 2 * (frequency * size).sum(-1) / total.clamp(min=1e-9), 0.0)


def noise_scales(
    centroid: float, grid: tuple[int, ...], scale: Literal["published", "sampling"]
) -> tuple[float, float]:
    """(s_0, s_1) for a signal on a grid of one or two dimensions."""
    decay = torch.tensor(-centroid)
    if len(grid) == 1:
        first, second = 3500 * float(-torch.expm1(7 * decay)), 3 * centroid
    else:
        first, second = 50 * float(-torch.expm1(5 * decay)), 0.4 * centroid
    return (torch.pi * max(grid) / 2 * centroid if scale == "sampling" else first), second


@torch.no_grad()
def add_noise(weights: Sequence[Tensor], scales: tuple[float, float], generator: torch.Generator | None = None) -> None:
    """Add Gaussian noise of deviation s/30 to the first two of a network's weights. Where both are zero, nothing
    changes, to the last bit. generator: torch's own without one."""
    for weight, scale in zip(weights, scales, strict=False):
        if scale:
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype).to(weight)
            weight.add_(noise, alpha=scale / OMEGA)


class Winner(SirenFit):
    """scale: 'published', or 'sampling', see above. official: the centroid as in the authors' code, see
    `spectral_centroid`. Further options: see SirenFit.

    The centroid is that of the whole signal, points that are held out among them. outcome: centroid, noise (s_0, s_1).
    """

    name = "winner"
    paper = "Spectral Bottleneck in Deep Neural Networks: Noise is All You Need, 2025, arXiv 2509.09719"
    counts_with = {"official": {"/data": "digit_sheet"}}

    def __init__(
        self, scale: Literal["published", "sampling"] = "published", official: bool = False, **options: object
    ) -> None:
        super().__init__(**options)
        self.scale, self.official = scale, official

    def initialize(self, network: Siren, signal: Tensor) -> None:
        centroid = spectral_centroid(signal, self.official)
        scales = noise_scales(centroid, tuple(signal.shape[:-1]), self.scale)
        add_noise([layer.weight for layer in network.layers], scales)
        self.outcome = {"centroid": centroid, "noise": list(scales)}
