"""Random views of a batch, as CoTTA, RoTTA and ROID use them: color jitter, a small affine map, a flip, noise.

One draw per call, as in their code: every image of a batch is turned by the same angle. The operations on colors
have a random order. On one-channel images those on saturation and hue do nothing. Theirs round shifts to whole pixels,
of which an image of eight has three; here they are not rounded.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import functional as V

# Ranges of the published code.
COLORS = {
    V.adjust_brightness: (0.6, 1.4),
    V.adjust_contrast: (0.7, 1.3),
    V.adjust_saturation: (0.5, 1.5),
    V.adjust_hue: (-0.06, 0.06),
    V.adjust_gamma: (0.7, 1.3),
}
DEGREES, SCALES, BLUR, NOISE = (-15.0, 15.0), (0.9, 1.1), (0.001, 0.5), 0.005
# Shifts are a sixteenth of the image after padding by half a side, an eighth of the image itself.
SHIFT = 0.125


def intensities(images: Tensor) -> Tensor:
    """Images as floats in [0, 1], from uint8 or as they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def jittered(images: Tensor, generator: torch.Generator, blur: bool = True, flip: bool = True) -> Tensor:
    """A view of each image (B, C, H, W), floats in [0, 1].

    blur: Gaussian blur and noise as well, and edges repeated outside the image (CoTTA, RoTTA); else the image is
    mirrored there, about its outermost pixels (ROID). flip: it may be mirrored as a whole, half of the time.
    generator: on the processor.
    """
    images = intensities(images)
    order = torch.randperm(len(COLORS), generator=generator).tolist()
    for adjust, limits in (list(COLORS.items())[i] for i in order):
        images = adjust(images.clamp(1e-8, 1), _uniform(limits, generator))
    shift = [_uniform((-SHIFT, SHIFT), generator) for _ in range(2)]
    images = moved(
        images, _uniform(DEGREES, generator), _uniform(SCALES, generator), shift, "border" if blur else "reflection"
    )
    if blur:
        images = V.gaussian_blur(images, [5, 5], [_uniform(BLUR, generator)] * 2)
    if torch.rand((), generator=generator) < 0.5 and flip:
        images = images.flip(-1)
    if blur:
        noise = torch.randn(images.shape, generator=generator)
        images = images + NOISE * noise.to(images.device)
    return images.clamp(0, 1)


def moved(images: Tensor, degrees: float, scale: float, shift: list[float], outside: str) -> Tensor:
    """Images turned about their center, scaled and shifted (as shares of the side), bilinearly.

    outside: 'border' | 'reflection', what is seen beyond the edges: the outermost pixel, or from there on inwards.
    """
    height, width = images.shape[-2:]
    cos, sin = math.cos(math.radians(degrees)) / scale, math.sin(math.radians(degrees)) / scale
    # From a pixel of the view to the place in the image that it shows; coordinates run over [-1, 1] on both axes.
    rows = torch.tensor(
        [[cos, -sin * height / width, 2 * shift[0]], [sin * width / height, cos, 2 * shift[1]]], dtype=torch.float64
    )
    grid = F.affine_grid(rows.to(images).expand(len(images), 2, 3), list(images.shape), align_corners=False)
    if outside == "border":
        return F.grid_sample(images, grid, padding_mode=outside, align_corners=False)
    # With ±1 at the centers of the outermost pixels, these are what grid_sample reflects about, and not repeated.
    centers = torch.tensor([width, height]) / (torch.tensor([width, height]) - 1).clamp_min(1)
    return F.grid_sample(images, grid * centers.to(grid), padding_mode=outside, align_corners=True)


def _uniform(limits: tuple[float, float], generator: torch.Generator) -> float:
    low, high = limits
    return low + (high - low) * torch.rand((), generator=generator).item()
