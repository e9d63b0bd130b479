"""Images changed at random, each as strongly as it is told: brightness, contrast, a square cut out."""

import torch
from torch import Tensor


def with_brightness(images: Tensor, strength: Tensor) -> Tensor:
    """Images (B, C, H, W) in [0, 1], each times a factor uniform in 1 ± strength (B,), cut at 0 and 1."""
    return (images * _factors(images, strength)).clamp(0, 1)


def with_contrast(images: Tensor, strength: Tensor) -> Tensor:
    """Images (B, C, H, W) in [0, 1], each spread about its mean by a factor uniform in 1 ± strength (B,)."""
    middle = images.mean((1, 2, 3), keepdim=True)
    return (middle + (images - middle) * _factors(images, strength)).clamp(0, 1)


def cut_out(images: Tensor, share: Tensor) -> Tensor:
    """Images (B, C, H, W) with a square of ⌊share · shorter side⌋ pixels at zero, share (B,), around any pixel; what
    lies outside of the image is cut off."""
    height, width = images.shape[-2:]
    side = (share * min(height, width)).floor()
    rows, columns = (
        (torch.arange(size, device=images.device) - torch.randint(size, (len(images), 1), device=images.device))
        for size in (height, width)
    )
    low, high = -(side[:, None] / 2).floor(), (side[:, None] / 2).ceil()
    inside = [(offsets >= low) & (offsets < high) for offsets in (rows, columns)]
    return images * ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])


def _factors(images: Tensor, strength: Tensor) -> Tensor:
    drawn = 2 * torch.rand(len(images), device=images.device) - 1
    return (1 + strength * drawn).view(-1, 1, 1, 1)
