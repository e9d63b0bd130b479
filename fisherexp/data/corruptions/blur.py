"""Blurs: defocus, glass, motion, zoom, Gaussian."""

import numpy as np
import torch
from torch import Tensor

from fisherexp.data.corruptions import filters
from fisherexp.data.corruptions.filters import correlate, separable, to_bytes, unit, zoom_matrix
from fisherexp.data.corruptions.noise import Shape


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing."""
    return to_bytes(filters.gaussian_blur(unit(images), sigma))


def defocus_blur(images: Tensor, radius: float, edge: float) -> Tensor:
    """Correlation with a disk whose edge is smoothed with σ = `edge`."""
    return to_bytes(correlate(unit(images), disk(radius, edge)))


def disk(radius: float, edge: float) -> Tensor:
    """A disk on a pixel grid, of sum 1, smoothed by a Gaussian over 3 pixels (5 for radii above 8); float64.

    Rows and columns of zeros around it, which the published grid has, are left out.
    """
    reach, width = (8, 3) if radius <= 8 else (int(radius), 5)
    line = torch.arange(-reach, reach + 1)
    inside = (line[:, None] ** 2 + line**2 <= radius**2).double()
    steps = torch.arange(width) - width // 2
    weights = torch.exp(-0.5 * (steps.double() / edge) ** 2)
    weights /= weights.sum()
    smoothed = correlate(inside / inside.sum(), weights[:, None] * weights)
    kept = min(reach, int(radius) + width // 2)
    return smoothed[reach - kept : reach + kept + 1, reach - kept : reach + kept + 1]


def glass_draws(count: int, shape: Shape, constants: tuple, generator: torch.Generator) -> dict[str, Tensor]:
    """Which neighbor each pixel takes: uniform in [0, 1), (N, passes, 2, H, W), horizontal then vertical."""
    return {"moves": torch.rand(count, constants[2], 2, *shape[1:], generator=generator)}


def glass_blur(images: Tensor, sigma: float, reach: int, passes: int, *, moves: Tensor) -> Tensor:
    """Smoothed, pixels taken from neighbors, smoothed again.

    The published loop goes from the last pixel to the first and means to exchange two pixels; as both are views of
    one array, the first becomes a copy of the second and the second stays. That is what is done here.
    """
    smoothed = to_bytes(filters.gaussian_blur(unit(images), sigma))
    flat = smoothed.flatten(2)
    offsets = (moves * 2 * reach).floor().long() - reach  # -reach … reach - 1
    for number in range(passes):
        sources = copied_from(offsets[:, number], reach)
        flat = flat.gather(2, sources[:, None].expand_as(flat))
    return to_bytes(filters.gaussian_blur(unit(flat.view_as(images)), sigma))


def copied_from(offsets: Tensor, reach: int) -> Tensor:
    """Which original pixel each pixel shows after one pass of sequential copies: flat indices (N, H·W).

    offsets (N, 2, H, W): horizontal and vertical distance of the neighbor each pixel copies. Pixels are visited in
    reverse order, leaving out `reach` of them at the far sides and `reach` + 1 at the near ones. A pixel that copies
    from one visited earlier shows what that one copied: chains, followed to their ends by doubling.
    """
    count, _, height, width = offsets.shape
    own = torch.arange(height * width, device=offsets.device).view(height, width)
    rows, columns = torch.arange(height, device=own.device)[:, None], torch.arange(width, device=own.device)
    visited = (rows > reach) & (rows <= height - reach) & (columns > reach) & (columns <= width - reach)
    neighbor = own + offsets[:, 1] * width + offsets[:, 0]
    neighbor = torch.where(visited, neighbor, own).flatten(1)
    visited, own = visited.flatten(), own.flatten()
    # Node p: pixel p after the pass; node p + HW: before it, where every chain ends.
    final = neighbor + height * width * ~((neighbor > own) & visited[neighbor])
    link = torch.cat([final, (own + height * width).expand(count, -1)], dim=1)
    while not torch.equal(further := link.gather(1, link), link):
        link = further
    return link[:, : height * width] - height * width


def motion_draws(count: int, shape: Shape, constants: tuple, generator: torch.Generator) -> dict[str, Tensor]:
    """Directions, uniform in ±45 degrees."""
    return {"degrees": (torch.rand(count, generator=generator) * 2 - 1) * 45}


def motion_blur(images: Tensor, radius: float, sigma: float, *, degrees: Tensor) -> Tensor:
    """Smeared in one direction each; see filters.motion_blur."""
    return filters.motion_blur(images, radius, sigma, degrees)


def zoom_blur(images: Tensor, end: float, step: float) -> Tensor:
    """Mean of the image and of its middle enlarged by 1, 1 + step, … below `end` (as numpy.arange counts)."""
    factors = np.arange(1, end, step)
    height, width = images.shape[-2:]
    intensities = unit(images, torch.float32)
    total = intensities.clone()
    for factor in factors.tolist():
        total += separable(intensities, zoom_matrix(height, factor), zoom_matrix(width, factor))
    return to_bytes(total / (len(factors) + 1))
