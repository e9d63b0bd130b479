"""Random crop, flip and rotation of whole batches of uint8 images, as tensor operations.

Drawing and applying are separate: the draws of an epoch are made at once from one seeded generator, one row
per position, so that a batch in the middle of an epoch is augmented alike however one got there.
Published with CIFAR ResNets: crop of the image padded by 4 pixels, horizontal flip (He et al. 2016, §4.2).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Policy = Literal["none", "crop", "crop_flip", "crop_flip_rotate"]
MAX_DEGREES = 15.0

Draws = dict[str, Tensor]


def padding_for(size: tuple[int, int]) -> tuple[int, int]:
    """Padding in pixels (vertical, horizontal): an eighth of the side, i.e. 4 for 28 and 32, 1 for 8."""
    return tuple(max(1, round(side / 8)) for side in size)


def draw(policy: Policy, count: int, size: tuple[int, int], generator: torch.Generator) -> Draws:
    """Random parameters for `count` images of `size` (H, W): tensors of shape (count,) by name.

    `top`, `left`: position of the crop in the padded image. `flip`: bool.
    `degrees`: anticlockwise, uniform in ±MAX_DEGREES.
    """
    draws: Draws = {}
    if policy != "none":
        for name, padding in zip(("top", "left"), padding_for(size), strict=True):
            draws[name] = torch.randint(0, 2 * padding + 1, (count,), generator=generator)
    if policy in ("crop_flip", "crop_flip_rotate"):
        draws["flip"] = torch.rand(count, generator=generator) < 0.5
    if policy == "crop_flip_rotate":
        draws["degrees"] = (torch.rand(count, generator=generator) * 2 - 1) * MAX_DEGREES
    return draws


def apply(images: Tensor, draws: Draws) -> Tensor:
    """Images (B, C, H, W) uint8, cropped, flipped, rotated, as far as `draws` has parameters for it."""
    draws = {name: values.to(images.device, non_blocking=True) for name, values in draws.items()}
    if "top" in draws:
        images = crop(images, draws["top"], draws["left"])
    if "flip" in draws:
        images = flip(images, draws["flip"])
    if "degrees" in draws:
        images = rotate(images, draws["degrees"])
    return images


def crop(images: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Each image (C, H, W) padded with zeros (see padding_for) and cut back to H×W at (top, left)."""
    height, width = images.shape[-2:]
    vertical, horizontal = padding_for((height, width))
    padded = F.pad(images, (horizontal, horizontal, vertical, vertical))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: every possible crop, nothing copied
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def flip(images: Tensor, which: Tensor) -> Tensor:
    """Mirror left-right the images where `which` (B,) is true."""
    return torch.where(which[:, None, None, None], images.flip(-1), images)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate each image anticlockwise about its center, bilinearly, with zeros from outside."""
    height, width = images.shape[-2:]
    angle = torch.deg2rad(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # The grid's coordinates run over [-1, 1] on both axes: off-diagonal terms carry the aspect ratio.
    rows = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
    turned = F.grid_sample(images.float(), grid, align_corners=False)
    return turned.round().clamp(0, 255).to(torch.uint8)
