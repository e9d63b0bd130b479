"""AugMix views of images, many at once: chains of mild operations, mixed (Hendrycks et al., arXiv 1912.02781).

With the strengths of MEMO's code: crop and flip, then three chains of one to three operations each, mixed by
Dirichlet(1, 1, 1) weights and with the cropped image itself by a Beta(1, 1) weight.

Where its code differs from our results, it resamples by Pillow (pillow_affine.py): values are cut off where they are
rounded here, edges are not blended with what is outside, which is gray here, and shears leave the first row in place,
not the middle. Its ImageNet code crops a random part, of 8 % and more, and brings that to the image's size.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as V

from fisherexp.data import augment
from fisherexp.methods.test_time_adaptation import pillow_affine

CHAINS, DEPTH = 3, 3
GRAY = 128.0


def augmix(
    images: Tensor,
    views: int,
    generator: torch.Generator,
    flip: bool = True,
    crop: Literal["padded", "resized"] = "padded",
    resampling: Literal["rounded", "pillow"] = "rounded",
) -> Tensor:
    """Random views (B, views, C, H, W) of images (B, C, H, W), uint8 or in [0, 1]; floats in [0, 1].

    crop: of the image padded, at its own size, or of a part of it, resized. resampling: see above.
    """
    operations = OPERATIONS if resampling == "rounded" else PILLOW
    if images.dtype != torch.uint8:
        images = (images * 255).round().to(torch.uint8)
    count = len(images) * views
    draws = augment.draw("crop_flip" if flip else "crop", count, tuple(images.shape[-2:]), generator)
    copies = images.repeat_interleave(views, 0)
    if crop == "resized":
        copies, draws = resized_crops(copies, generator), {name: draws[name] for name in draws if name == "flip"}
    base = augment.apply(copies, draws).float()
    chains = base.repeat(CHAINS, 1, 1, 1)
    depths = torch.randint(1, DEPTH + 1, (len(chains),), generator=generator)
    for level in range(DEPTH):
        choices = torch.randint(len(operations), (len(chains),), generator=generator)
        strengths = 0.1 + 0.9 * torch.rand(len(chains), generator=generator)
        signs = torch.where(torch.rand(len(chains), generator=generator) < 0.5, -1.0, 1.0)
        for number, operate in enumerate(operations):
            rows = ((choices == number) & (depths > level)).nonzero().flatten()
            if len(rows):
                here = rows.to(chains.device)
                chains[here] = operate(chains[here], strengths[rows].to(chains), signs[rows].to(chains))
    # Dirichlet(1, …, 1) as normalized exponentials, Beta(1, 1) as a uniform number.
    weights = -torch.rand(CHAINS, count, generator=generator).clamp_min(1e-12).log()
    weights = (weights / weights.sum(0)).to(base)[:, :, None, None, None]
    own = torch.rand(count, generator=generator).to(base)[:, None, None, None]
    mixed = (weights * chains.view(CHAINS, *base.shape)).sum(0)
    return ((own * base + (1 - own) * mixed) / 255).unflatten(0, (-1, views))


def resized_crops(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random part of each image (N, C, H, W) uint8, 8 % to all of it with sides of 3:4 to 4:3, resized to H×W."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        boxes = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for image in images]
    pairs = zip(images, boxes, strict=True)
    return torch.stack([V.resized_crop(image, *box, list(images.shape[-2:]), antialias=True) for image, box in pairs])


def autocontrast(images: Tensor, strength: Tensor | None = None, sign: Tensor | None = None) -> Tensor:
    """Each channel stretched to 0 … 255; constant ones stay."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    scale = 255 / (high - low)
    stretched = ((images - low) * scale).floor().clamp(0, 255)
    return torch.where(high > low, stretched, images)


def equalize(images: Tensor, strength: Tensor | None = None, sign: Tensor | None = None) -> Tensor:
    """Each channel mapped so that its gray values are equally frequent, as Pillow rounds it."""
    flat = images.flatten(2).flatten(0, 1).long()
    counts = torch.zeros(len(flat), 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    largest = flat.amax(1, keepdim=True)
    step = (flat.shape[1] - counts.gather(1, largest)) // 255
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp_min(1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return table.gather(1, flat).view(images.shape).to(images.dtype)


def solarize(images: Tensor, strength: Tensor, sign: Tensor | None = None) -> Tensor:
    """Values at or above a threshold of 256 - ⌊25.6 strength⌋ inverted."""
    threshold = 256 - (25.6 * strength).floor()
    return torch.where(images >= threshold[:, None, None, None], 255 - images, images)


def posterize(images: Tensor, strength: Tensor | None = None, sign: Tensor | None = None) -> Tensor:
    """The upper four bits, at any of these strengths."""
    return (images / 16).floor() * 16


def rotate(images: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """By ⌊3 strength⌋ degrees either way."""
    angle = torch.deg2rad(sign * (3 * strength).floor())
    return _mapped(images, angle.cos(), -angle.sin(), angle.sin(), angle.cos())


def shear_x(images: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """Rows shifted by 3 % · strength of their distance to the center, where the published code takes the top."""
    one = torch.ones_like(strength)
    return _mapped(images, one, 0.03 * sign * strength, 0 * one, one)


def shear_y(images: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """As `shear_x`, for columns."""
    one = torch.ones_like(strength)
    return _mapped(images, one, 0 * one, 0.03 * sign * strength, one)


def translate_x(images: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """By ⌊strength · width / 30⌋ pixels."""
    return _shifted(images, -1, strength, sign)


def translate_y(images: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
    """By ⌊strength · height / 30⌋ pixels."""
    return _shifted(images, -2, strength, sign)


OPERATIONS = (autocontrast, equalize, solarize, posterize, rotate, shear_x, shear_y, translate_x, translate_y)
PLACES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
PILLOW = (autocontrast, equalize, solarize, posterize, *(getattr(pillow_affine, name) for name in PLACES))


def _shifted(images: Tensor, dim: int, strength: Tensor, sign: Tensor) -> Tensor:
    one = torch.ones_like(strength)
    # Coordinates run over [-1, 1].
    shift = 2 * sign * (strength * images.shape[dim] / 30).floor() / images.shape[dim]
    x, y = (shift, 0 * one) if dim == -1 else (0 * one, shift)
    return _mapped(images, one, 0 * one, 0 * one, one, x, y)


def _mapped(images: Tensor, a, b, c, d, x=0.0, y=0.0) -> Tensor:
    """Each pixel (u, v) shows the place (a u + b v + x, c u + d v + y), bilinearly; gray outside; whole values."""
    zero = torch.zeros_like(a)
    height, width = images.shape[-2:]
    rows = torch.stack([a, b * height / width, zero + x, c * width / height, d, zero + y], 1).view(-1, 2, 3)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    return (F.grid_sample(images - GRAY, grid, align_corners=False) + GRAY).round()
