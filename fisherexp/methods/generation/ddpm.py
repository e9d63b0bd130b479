"""DDPM: one share of signal for all frequencies, the baseline of every other corruption.

    linear: β_t from 10⁻⁴ to 0.02 in 1000 steps      cosine: ᾱ_t = φ(t)/φ(0), φ(t) = cos²(π/2 · (t/T + s)/(1 + s))

Ho et al., NeurIPS 2020, arXiv 2006.11239; cosine with s = 0.008: Nichol, Dhariwal, ICML 2021, arXiv 2102.09672. With
another T the linear β are scaled by 1000/T, as in the latter's code, so that ᾱ ends where it would. The variance of a
sampling step is β_t and is not learned, where Nichol and Dhariwal learn it.
"""

import math
from typing import Literal

import torch
from torch import nn

from fisherexp.config.types import Count, Probability
from fisherexp.methods.generation.model import DiffusionModel
from fisherexp.methods.generation.schedule import LARGEST_BETA, Schedule
from fisherexp.methods.recipe import Recipe

OFFSET = 0.008
FIRST_BETA, LAST_BETA, REFERENCE_STEPS = 1e-4, 0.02, 1000


def cosine(steps: int) -> Schedule:
    """The cosine schedule, (T, 1, 1)."""
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    phi = (math.pi / 2 * (time + OFFSET) / (1 + OFFSET)).cos().square()
    return Schedule.of_alpha_bar((phi[1:] / phi[0])[:, None, None])


def linear(steps: int) -> Schedule:
    """The linear schedule, (T, 1, 1)."""
    scale = REFERENCE_STEPS / steps
    beta = torch.linspace(scale * FIRST_BETA, scale * LAST_BETA, steps, dtype=torch.float64).clamp(max=LARGEST_BETA)
    return Schedule.of_alpha_bar((1 - beta).cumprod(0)[:, None, None])


class DDPM(DiffusionModel):
    """steps: T. schedule: as above. Further options: see DiffusionModel."""

    paper = "Ho et al., NeurIPS 2020, arXiv 2006.11239; Nichol, Dhariwal, ICML 2021, arXiv 2102.09672"

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        schedule: Literal["cosine", "linear"] = "cosine",
        steps: Count = 50,
        average: Probability = 0.98,
        clip: bool = True,
        deterministic: bool = False,
    ) -> None:
        super().__init__(model, training, steps, average, clip, deterministic)
        self._schedule = {"cosine": cosine, "linear": linear}[schedule](steps)

    @property
    def schedule(self) -> Schedule:
        return self._schedule
