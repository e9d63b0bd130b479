"""Pillow's affine maps of 8-bit images, many at once, with what MEMO's official code asks of them.

Bilinear between pixels whose centers are at halves, from the upper left corner; edge pixels go on to the border, and
what lies beyond it is the fill color. Values are cut off, not rounded. That code's fill color is the number 128, which
Pillow reads as gray for one channel and as the color (128, 0, 0) for three.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

FILL = 128.0
TINY = 1e-6  # below a whole value by rounding errors only


def rotate(images: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Anticlockwise by sign · ⌊3 strength⌋ degrees about the center."""
    angle = torch.deg2rad(sign.double() * (3 * strength).floor())
    cos, sin = angle.cos(), angle.sin()
    height, width = images.shape[-2:]
    x, y = (1 - cos) * width / 2 + sin * height / 2, -sin * width / 2 + (1 - cos) * height / 2
    return affine(images, [cos, -sin, x, sin, cos, y])


def shear_x(images: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Rows shifted by 3 % · strength of their distance to the top."""
    one = torch.ones_like(strength)
    return affine(images, [one, 0.03 * sign * strength, 0 * one, 0 * one, one, 0 * one])


def shear_y(images: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Columns shifted by 3 % · strength of their distance to the left."""
    one = torch.ones_like(strength)
    return affine(images, [one, 0 * one, 0 * one, 0.03 * sign * strength, one, 0 * one])


def translate_x(images: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """By ⌊strength · width / 30⌋ pixels."""
    one = torch.ones_like(strength)
    return affine(images, [one, 0 * one, sign * (strength * images.shape[-1] / 30).floor(), 0 * one, one, 0 * one])


def translate_y(images: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """By ⌊strength · height / 30⌋ pixels."""
    one = torch.ones_like(strength)
    return affine(images, [one, 0 * one, 0 * one, 0 * one, one, sign * (strength * images.shape[-2] / 30).floor()])


def affine(images: Tensor, numbers: list[Tensor]) -> Tensor:
    """Images (N, C, H, W) of whole values; the pixel at (u, v) shows the place (a u + b v + c, d u + e v + f) of its
    image, for six numbers (N,) each."""
    height, width = images.shape[-2:]
    a, b, c, d, e, f = (number.double()[:, None, None] for number in numbers)
    u = torch.arange(width, dtype=torch.float64, device=images.device) + 0.5
    v = torch.arange(height, dtype=torch.float64, device=images.device)[:, None] + 0.5
    x, y = a * u + b * v + c, d * u + e * v + f
    places = torch.stack([2 * x / width - 1, 2 * y / height - 1], 3)
    shown = F.grid_sample(images.double(), places, padding_mode="border", align_corners=False)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    fill = torch.tensor([FILL] + [0.0] * (images.shape[1] - 1)).to(shown).view(1, -1, 1, 1)
    return torch.where(inside[:, None], (shown + TINY).floor(), fill).to(images.dtype)
