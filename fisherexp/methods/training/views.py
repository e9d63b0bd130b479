"""A weak and a strong random view of images, as FixMatch trains on (Sohn et al., NeurIPS 2020, arXiv 2001.07685).

weak: a crop of the padded image, mirrored half of the time where a mirrored image means the same.
strong: the same, then two random operations (after RandAugment, Cubuk et al., arXiv 1909.13719) and a square cut out
(DeVries, Taylor, arXiv 1708.04552).

Where this differs from their code: all images of a batch are changed at once, each in a way of its own; the geometric
operations of an image are one map, which comes before those on its intensities; the square has the image's mean, not
gray; and equalizing, posterizing, sharpening and colors are left out.

Random numbers come from torch's global generator on the CPU, which a run seeds and its saved state restores.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fisherexp.data import augment
from fisherexp.methods.mixup.mixing import intensities

# Operation -> the largest value it takes, either way; RandAugment's own.
TURN, SHEAR, SHIFT = 30.0, 0.3, 0.3  # degrees; a share of the distance to the centre; a share of the side
FACTOR = 0.9  # of brightness and contrast, from 1 up or down
OPERATIONS = ("turn", "shear_x", "shear_y", "shift_x", "shift_y", "brightness", "contrast", "solarize", "none")
AT_ONCE = 2


def weak(images: Tensor, mirrors: bool) -> Tensor:
    """Images (B, C, H, W), uint8 or in [0, 1], as floats in [0, 1]. mirrors: they may be mirrored."""
    policy = "crop_flip" if mirrors else "crop"
    draws = augment.draw(policy, len(images), tuple(images.shape[-2:]), torch.default_generator)
    return intensities(augment.apply(images, draws))


def strong(images: Tensor, mirrors: bool) -> Tensor:
    """As `weak`, with operations and a square cut out of each image."""
    images = weak(images, mirrors)
    chosen = torch.randint(len(OPERATIONS), (AT_ONCE, len(images))).to(images.device)
    size = 2 * torch.rand(AT_ONCE, len(images)).to(images) - 1

    def drawn(name: str) -> Tensor:
        """(B,), in -1 … 1; 0 of the images for which this operation was not chosen."""
        return torch.where(chosen == OPERATIONS.index(name), size, 0).sum(0).clamp(-1, 1)

    images = moved(images, *(drawn(name) for name in OPERATIONS[:5]))
    brightness, contrast, solarize = (drawn(name)[:, None, None, None] for name in OPERATIONS[5:8])
    images = images * (1 + FACTOR * brightness)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (mean + (1 + FACTOR * contrast) * (images - mean)).clamp(0, 1)
    return cut_out(torch.where(images > 1 - solarize.abs(), 1 - images, images))


def moved(images: Tensor, turn: Tensor, shear_x: Tensor, shear_y: Tensor, shift_x: Tensor, shift_y: Tensor) -> Tensor:
    """Turned, sheared and shifted by these shares (B,) of what is largest; black outside."""
    height, width = images.shape[-2:]
    angle = torch.deg2rad(TURN * turn)
    cos, sin = angle.cos(), angle.sin()
    # Coordinates run over -1 … 1 on both axes: off-diagonal terms carry the aspect ratio.
    across = [cos + SHEAR * shear_x * sin, (SHEAR * shear_x * cos - sin) * height / width, 2 * SHIFT * shift_x]
    down = [(sin + SHEAR * shear_y * cos) * width / height, cos - SHEAR * shear_y * sin, 2 * SHIFT * shift_y]
    grid = F.affine_grid(torch.stack([*across, *down], 1).view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def cut_out(images: Tensor) -> Tensor:
    """A square of half the side, around a random pixel and cut off at the border, with the mean of its image."""
    inside = torch.ones(len(images), 1, 1, 1, dtype=torch.bool, device=images.device)
    for dim, side in ((2, images.shape[2]), (3, images.shape[3])):
        first = (torch.randint(side, (len(images),)) - side // 4).to(images.device)
        shape = [-1 if axis == dim else 1 for axis in range(4)]
        place = torch.arange(side, device=images.device).view(shape) - first.view(-1, 1, 1, 1)
        inside = inside & (place >= 0) & (place < max(1, side // 2))
    return torch.where(inside, images.mean((1, 2, 3), keepdim=True), images)
