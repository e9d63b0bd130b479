"""Shortest Path Diffusion: corruption along the Fisher-Rao geodesic from the images' Gaussian model to white noise.

    S_t(f) = D(f)^τ,   τ = 1 - t/T,   ᾱ_t(f) = (1 - D^τ)/(1 - D),   so that ᾱ_t D + 1 - ᾱ_t = D^τ

D is the power spectrum of the images. The logarithm of every frequency's power goes to that of white noise at its own
constant rate, and all arrive together. Das et al., ICML 2023, arXiv 2306.00501. In the authors' code t takes T equally
spaced values of [1, T-1], so no spectrum ever becomes white, although sampling starts from white noise; grid="official"
does the same, grid="paper" takes t = 1, …, T. That one ends in white noise, so its last β is cut to 0.999 and samples
go astray unless predicted images are clipped: it is not the default. The authors compute in float32, which puts β off
by up to 2 % at T = 4000: we use float64. D is fitted to the data in use, with the pixels scaled as in training; theirs
is a formula fitted to CIFAR-10.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, Positive, Probability
from fisherexp.methods.generation.model import DiffusionModel
from fisherexp.methods.generation.schedule import Schedule
from fisherexp.methods.recipe import Recipe
from fisherexp.metrics.spectrum import power_spectrum, radial_average, radial_frequency
from fisherexp.problems.generative import scaled
from fisherexp.scenarios.setting import Setting

# c₁/(c₂ + |f|)^m as fitted to CIFAR-10 by the authors, pixels in [-1, 1].
CIFAR10_FIT = {"scale": 1.59, "offset": 0.0086, "power": 2.0}

Grid = Literal["paper", "official"]


def power_law(height: int, width: int, scale: float, offset: float, power: float) -> Tensor:
    """D(f) = scale/(offset + |f|)^power, (H, W), float64."""
    return scale / (offset + radial_frequency(height, width)) ** power


def data_spectrum(images: Tensor, floor: float) -> Tensor:
    """D (H, W), float64, of images (B, C, H, W) scaled as in training: radially averaged, one for all channels.

    floor: at least this in every frequency. A frequency that no image has would be infinitely far from white noise.
    """
    return radial_average(power_spectrum(images)).clamp(min=floor)


def remaining(steps: int, grid: Grid = "official") -> Tensor:
    """τ of every step, (T,), float64. Raises ValueError for a grid of another name."""
    ends = {"paper": steps, "official": steps - 1}
    if grid not in ends:
        raise ValueError(f"grid={grid!r} is neither 'paper' nor 'official'")
    return 1 - torch.linspace(1, ends[grid], steps, dtype=torch.float64) / steps


def shortest_path(spectrum: Tensor, steps: int, grid: Grid = "official") -> Schedule:
    """The schedule for images of this spectrum (H, W), positive and radially symmetric."""
    log_d, tau = spectrum.double().log(), remaining(steps, grid)[:, None, None]
    alpha_bar = torch.expm1(tau * log_d) / torch.expm1(log_d)
    # At D = 1 the image looks like noise from the start; the limit is τ.
    return Schedule.of_alpha_bar(torch.where(log_d == 0, tau.expand_as(alpha_bar), alpha_bar))


class ShortestPathDiffusion(DiffusionModel):
    """steps: T. grid: as above. floor: see data_spectrum. Further options: see DiffusionModel.

    The spectrum of the training images is kept with the weights: samples need the schedule of the training.
    """

    paper = "Das et al., ICML 2023, arXiv 2306.00501"

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        grid: Literal["official", "paper"] = "official",
        floor: Positive = 1e-3,
        steps: Count = 50,
        average: Probability = 0.98,
        clip: bool = False,
        deterministic: bool = False,
    ) -> None:
        model.register_buffer("spectrum", torch.ones(model.input_shape[1:], dtype=torch.float64))
        super().__init__(model, training, steps, average, clip, deterministic)
        self.grid, self.floor = grid, floor
        self._schedule: Schedule | None = None

    def batches(self, setting: Setting) -> Any:
        spectrum = data_spectrum(scaled(setting.parts[self.fits_on].inputs), self.floor)
        for model in (self.model, self.averaged.module):
            model.spectrum.copy_(spectrum)
        self._schedule = None
        return super().batches(setting)

    @property
    def schedule(self) -> Schedule:
        if self._schedule is None:
            self._schedule = shortest_path(self.model.spectrum.cpu(), self.steps, self.grid)
        return self._schedule
