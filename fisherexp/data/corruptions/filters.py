"""Linear operations on images (…, H, W), with the borders of the libraries the corruptions were published with.

Whatever is separable is a small matrix for the rows and one for the columns: exact for any border and any reach,
and a batch is one matrix product.
"""

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# What lies outside an image 'abcd': 'nearest' aaa|abcd|ddd, 'reflect' cba|abcd|dcb, 'mirror' dcb|abcd|cba (SciPy's
# names; OpenCV's BORDER_REPLICATE, BORDER_REFLECT and BORDER_REFLECT_101).
Border = Literal["nearest", "reflect", "mirror"]

LUMA = (0.299, 0.587, 0.114)


def unit(images: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """uint8 images as intensities in [0, 1]."""
    return images.to(dtype) / 255


def to_bytes(intensities: Tensor) -> Tensor:
    """Intensities, clipped to [0, 1], as uint8: truncated, not rounded, as published."""
    return (intensities.clamp(0, 1) * 255).to(torch.uint8)


def luma(images: Tensor) -> Tensor:
    """Gray version (N, 1, H, W) of color images (N, 3, H, W); gray images as they are."""
    if images.shape[1] == 1:
        return images
    weights = torch.tensor(LUMA, dtype=images.dtype, device=images.device)
    return (images * weights[:, None, None]).sum(1, keepdim=True)


def inside(positions: Tensor, size: int, border: Border) -> Tensor:
    """Where in 0 … size - 1 an image of that size shows what lies at integer `positions`, however far outside."""
    if border == "nearest":
        return positions.clamp(0, size - 1)
    if border == "reflect":
        folded = positions.remainder(2 * size)
        return torch.minimum(folded, 2 * size - 1 - folded)
    period = max(1, 2 * (size - 1))
    folded = positions.remainder(period)
    return torch.minimum(folded, period - folded)


def separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows (H', H) · image · columnsᵀ (W, W'), for each image; the matrices follow its type and device."""
    return rows.to(images) @ images @ columns.to(images).T


def gaussian_taps(sigma: float, truncate: float = 4.0) -> tuple[Tensor, Tensor]:
    """Offsets -r … r in pixels and weights of sum 1, as scipy.ndimage.gaussian_filter1d has them, to the last bit."""
    reach = int(truncate * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    # SciPy's expression in NumPy: torch.exp, or squaring after dividing, may give a neighboring number. Blurred whites
    # cut off to bytes are then 254 instead of 255, and a second blur can double the difference.
    weights = np.exp(-0.5 / (sigma * sigma) * offsets**2) if sigma else np.ones(1)
    return torch.from_numpy(offsets), torch.from_numpy(weights / weights.sum())


def gaussian_matrix(size: int, sigma: float, border: Border, truncate: float = 4.0) -> Tensor:
    """Matrix (size, size) that smooths a line."""
    return _banded(size, *gaussian_taps(sigma, truncate), border)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Each image smoothed over rows and columns, edges repeated, as skimage.filters.gaussian.

    The taps are added in SciPy's order, from both ends to the middle: the result is cut off to bytes, and on a flat
    white area the last bit of a sum decides between 254 and 255.
    """
    _, weights = gaussian_taps(sigma)
    reach = len(weights) // 2
    for axis in (-2, -1):
        size = images.shape[axis]
        around = inside(torch.arange(-reach, size + reach, device=images.device), size, "nearest")
        padded = images.index_select(axis, around)
        smoothed = images * weights[reach].item()
        for tap in range(reach):
            both = padded.narrow(axis, tap, size) + padded.narrow(axis, 2 * reach - tap, size)
            smoothed += both.mul_(weights[tap].item())
        images = smoothed
    return images


def box_blur(images: Tensor) -> Tensor:
    """Mean over 3×3 pixels, mirrored at the border, float32: as OpenCV's blur, which sums in double precision."""
    offsets, ones = torch.arange(-1, 2), torch.ones(3, dtype=torch.float64)
    total = separable(images.double(), *(_banded(size, offsets, ones, "mirror") for size in images.shape[-2:]))
    return (total / 9).float()


def zoom_matrix(size: int, factor: float) -> Tensor:
    """Matrix (size, size) that enlarges the middle of a line by `factor`, linearly, and cuts it back to its length.

    End points are kept in place, as by scipy.ndimage.zoom of order 1; the crop is ceil(size / factor) long.
    """
    crop = math.ceil(size / factor)
    top, enlarged = (size - crop) // 2, round(crop * factor)
    trim = (enlarged - size) // 2
    positions = torch.arange(trim, trim + size, dtype=torch.float64) * (crop - 1) / max(1, enlarged - 1)
    low = positions.floor().clamp(0, crop - 1)
    share = positions - low
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix.scatter_add_(1, (top + low.long())[:, None], (1 - share)[:, None])
    matrix.scatter_add_(1, (top + (low.long() + 1).clamp(max=crop - 1))[:, None], share[:, None])
    return matrix


def correlate(images: Tensor, kernel: Tensor, border: Border = "mirror") -> Tensor:
    """Each image (…, H, W) correlated with an odd-sized kernel (k, l), as OpenCV's filter2D."""
    height, width = images.shape[-2:]
    for axis, size, length in ((-2, height, kernel.shape[0]), (-1, width, kernel.shape[1])):
        positions = torch.arange(-(length // 2), size + length // 2, device=images.device)
        images = images.index_select(axis, inside(positions, size, border))
    flat = images.reshape(-1, 1, *images.shape[-2:])
    return F.conv2d(flat, kernel.to(images)[None, None]).view(*images.shape[:-2], height, width)


def motion_blur(images: Tensor, radius: float, sigma: float, degrees: Tensor) -> Tensor:
    """uint8 images (N, C, H, W) smeared along directions `degrees` (N,), to the bit as ImageMagick 6 does it.

    The mean of the pixels at 0, 1, … 2⌈radius⌉ steps in that direction, each at the nearest whole pixel, edges
    repeated, with the weights of half a Gaussian of `sigma` steps. ImageMagick calculates in 16 bits, in which the
    value v is 257 v: it rounds to these, and truncates to 8 bits when it writes.
    """
    count, channels, height, width = images.shape
    steps = torch.arange(2 * math.ceil(radius) + 1, dtype=torch.float64, device=images.device)
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    weights = (weights / weights.sum()).float()
    angle = torch.deg2rad(degrees.double())[:, None]
    down, right = ((steps * f(angle) - 0.5).ceil().long() for f in (torch.sin, torch.cos))
    rows, columns = (torch.arange(size, device=images.device) for size in (height, width))
    flat, smeared = images.float().flatten(2), torch.zeros(count, channels, height * width, device=images.device)
    for step, weight in enumerate(weights):
        row = inside(rows + down[:, step, None], height, "nearest")
        column = inside(columns + right[:, step, None], width, "nearest")
        source = (row[:, :, None] * width + column[:, None, :]).flatten(1)
        smeared += weight * flat.gather(2, source[:, None].expand(-1, channels, -1))
    deep = (smeared.view_as(images) * 257).round().int()
    return (deep // 257).to(torch.uint8)


def _banded(size: int, offsets: Tensor, weights: Tensor, border: Border) -> Tensor:
    positions = inside(torch.arange(size)[:, None] + offsets, size, border)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, positions, weights.expand(size, -1).contiguous())
