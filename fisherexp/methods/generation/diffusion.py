"""Training and sampling of a diffusion model under any schedule: the methods of this wing differ in nothing else.

    loss: ‖ε_θ(x_t, t) - ε‖², t uniform, ε the white noise of the pixels
    û_{t-1} = (û_t - β_t/√(1 - ᾱ_t) ε̂_θ)/√(1 - β_t) + √β_t ẑ            (none at t = 1)
    û_{t-1} = √ᾱ_{t-1}/√ᾱ_t (û_t - √(1 - ᾱ_t) ε̂_θ) + √(1 - ᾱ_{t-1}) ε̂_θ   (deterministic)

Ho et al., NeurIPS 2020, arXiv 2006.11239, frequency by frequency as in Das et al., ICML 2023, arXiv 2306.00501. All
factors are real and the same for f and -f, so every line filters real images; the authors' code keeps complex ones and
drops imaginary parts, which gives the same numbers. The network sees t scaled to [0, 1000), as in their configuration.
DDPM's code cuts the predicted image to [-1, 1] before each step back, theirs does not: `clip` says which.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fisherexp.methods.generation.schedule import Schedule, filtered

# ε_θ: images (B, C, H, W) and times (B,) in [0, 1000) -> noise (B, C, H, W).
Network = Callable[[Tensor, Tensor], Tensor]
TIME_RANGE = 1000.0


def scaled_time(schedule: Schedule, rows: Tensor) -> Tensor:
    """The time a network sees at step t = row + 1: row · 1000/T, float32."""
    return rows.float() * (TIME_RANGE / schedule.steps)


def corrupt(schedule: Schedule, images: Tensor, rows: Tensor, noise: Tensor) -> Tensor:
    """x_t of images (B, C, H, W) at steps t = rows + 1, rows (B,), with noise (B, C, H, W) ~ N(0, 1)."""
    alpha_bar = schedule.alpha_bar[rows, None]
    signal, rest = (gain.sqrt().to(images) for gain in (alpha_bar, 1 - alpha_bar))
    return filtered(images, signal) + filtered(noise, rest)


def noise_loss(network: Network, schedule: Schedule, images: Tensor, generator: torch.Generator) -> Tensor:
    """Mean squared error of the predicted noise, one random step for each image (B, C, H, W), pixels in [-1, 1]."""
    rows = torch.randint(schedule.steps, (len(images),), generator=generator)
    noise = torch.randn(images.shape, dtype=images.dtype, generator=generator).to(images.device)
    return F.mse_loss(network(corrupt(schedule, images, rows, noise), scaled_time(schedule, rows).to(images)), noise)


@torch.no_grad()
def sample(
    network: Network,
    schedule: Schedule,
    shape: tuple[int, int, int, int],
    generator: torch.Generator,
    deterministic: bool = False,
    clip: bool = False,
) -> Tensor:
    """Images (B, C, H, W) of this shape, from white noise by all T steps.

    deterministic: no noise but the first. clip: cut the image that each prediction implies to [-1, 1]. A schedule that
    ends in white noise needs it: its last β is 0.999, and the first step back multiplies errors by √1000.
    """
    step = deterministic_step if deterministic else ancestral_step
    images = torch.randn(shape, generator=generator)
    for row in reversed(range(schedule.steps)):
        time = scaled_time(schedule, torch.full((len(images),), row))
        fresh = torch.randn(shape, generator=generator) if row and not deterministic else torch.zeros(())
        noise = network(images, time)
        images = step(schedule, images, clipped_noise(schedule, images, noise, row) if clip else noise, row, fresh)
    return images


def ancestral_step(schedule: Schedule, images: Tensor, noise: Tensor, row: int, fresh: Tensor) -> Tensor:
    """From x_t to x_{t-1} at t = row + 1: noise is the predicted one, fresh is white and unused in the last step."""
    beta, alpha_bar = schedule.beta[row], schedule.alpha_bar[row]
    keep = (1 - beta).rsqrt()
    known = filtered(images, keep.to(images)) - filtered(noise, (keep * beta / (1 - alpha_bar).sqrt()).to(images))
    return known + filtered(fresh.expand_as(images), beta.sqrt().to(images)) if row else known


def deterministic_step(schedule: Schedule, images: Tensor, noise: Tensor, row: int, fresh: Tensor) -> Tensor:
    """The same without noise: the corruption of the image that the predicted noise implies, one step earlier."""
    alpha_bar = schedule.alpha_bar[row]
    before = schedule.alpha_bar[row - 1] if row else torch.ones_like(alpha_bar)
    keep = (before / alpha_bar).sqrt()
    of_noise = (1 - before).sqrt() - keep * (1 - alpha_bar).sqrt()
    return filtered(images, keep.to(images)) + filtered(noise, of_noise.to(images))


def clipped_noise(schedule: Schedule, images: Tensor, noise: Tensor, row: int) -> Tensor:
    """The noise in x_t, t = row + 1, if the image that the predicted noise implies is cut to [-1, 1]."""
    alpha_bar = schedule.alpha_bar[row]
    signal, rest = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    clean = filtered(images, (1 / signal).to(images)) - filtered(noise, (rest / signal).to(images))
    return filtered(images, (1 / rest).to(images)) - filtered(clean.clamp(-1, 1), (signal / rest).to(images))
