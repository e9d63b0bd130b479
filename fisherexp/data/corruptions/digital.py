"""Brightness, contrast, saturation, elastic transform, pixelation, JPEG."""

import io
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fisherexp.data.corruptions.filters import gaussian_matrix, separable, to_bytes, unit
from fisherexp.data.corruptions.noise import Shape


def brightness(images: Tensor, added: float) -> Tensor:
    """`added` to the value of HSV; a gray image has no other coordinate."""
    clean = unit(images)
    value = clean.amax(1, keepdim=True)
    ratio = torch.where(value > 0, clean / value, 1.0)  # black becomes gray
    return to_bytes((value + added).clamp(0, 1) * ratio)


def saturate(images: Tensor, factor: float, added: float) -> Tensor:
    """Saturation of HSV s becomes factor · s + added. Pixels without color have hue 0: what is added is red.

    Gray images have no saturation and stay as they are.
    """
    if images.shape[1] == 1:
        return images.clone()
    clean = unit(images)
    value, span = clean.amax(1, keepdim=True), clean.amax(1, keepdim=True) - clean.amin(1, keepdim=True)
    red = torch.tensor([0.0, 1.0, 1.0], dtype=clean.dtype, device=clean.device)[:, None, None]
    depth = torch.where(span > 0, (value - clean) / span, red)  # 0 at the strongest channel, 1 at the weakest
    saturation = torch.where(value > 0, span / value, 0.0)
    return to_bytes(value * (1 - (factor * saturation + added).clamp(0, 1) * depth))


def contrast(images: Tensor, factor: float) -> Tensor:
    """The distance of each value from its channel's mean, times `factor`."""
    clean = unit(images)
    mean = clean.mean((2, 3), keepdim=True)
    return to_bytes((clean - mean) * factor + mean)


def elastic_draws(count: int, shape: Shape, constants: tuple, generator: torch.Generator) -> dict[str, Tensor]:
    """Uniform values in [-1, 1): of three corners (N, 3, 2), and of a field (N, 2, H, W); x before y in both."""
    corners = torch.rand(count, 3, 2, generator=generator) * 2 - 1
    return {"corners": corners, "field": torch.rand(count, 2, *shape[1:], generator=generator) * 2 - 1}


def elastic_transform(
    images: Tensor, amplitude: float, sigma: float, jitter: float, *, corners: Tensor, field: Tensor
) -> Tensor:
    """An affine map that moves three points at random, then displacements by a smoothed random field.

    Lengths are shares of the smaller side. OpenCV, of the published code, rounds the positions of the affine map to
    1/32 of a pixel; here they are exact.
    """
    height, width = images.shape[-2:]
    side = min(height, width)
    # In the published code the center is (H // 2, W // 2) although its points are (x, y): alike for square images.
    center, reach = torch.tensor([height // 2, width // 2]), side // 3
    points = center + reach * torch.tensor([[1, 1], [1, -1], [-1, -1]])
    points = points.to(images.device, torch.float64).expand(len(images), 3, 2)
    moved = points + corners.double() * jitter * side
    one = torch.ones_like(moved[..., :1])
    back = torch.linalg.solve(torch.cat([moved, one], 2), points)  # (N, 3, 2): (x, y, 1) · back = where it came from
    y, x = torch.meshgrid(*(torch.arange(n, device=images.device).double() for n in (height, width)), indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3) @ back
    turned = _sample(unit(images, torch.float32), places.view(-1, height, width, 2), mirror=True)
    smooth = (gaussian_matrix(size, sigma * side, "reflect", truncate=3) for size in (height, width))
    displacement = amplitude * side * separable(field.double(), *smooth)
    return to_bytes(_sample(turned, torch.stack([x, y], -1) + displacement.permute(0, 2, 3, 1), mirror=False))


def _sample(images: Tensor, places: Tensor, mirror: bool) -> Tensor:
    """Bilinear values at places (N, H, W, 2) = (x, y) in pixels; outside mirrored at the centers of the outermost
    pixels, or at their outer edges."""
    size = torch.tensor([images.shape[3], images.shape[2]], device=images.device)
    grid = 2 * places / (size - 1).clamp(min=1) - 1 if mirror else (2 * places + 1) / size - 1
    return F.grid_sample(images, grid.to(images.dtype), padding_mode="reflection", align_corners=mirror)


def pixelate(images: Tensor, share: float) -> Tensor:
    """Resized to `share` of each side and back, by areas, to the bit as Pillow's BOX filter does it."""
    height, width = images.shape[-2:]
    small = box_resize(images, int(height * share), int(width * share))
    return box_resize(small, height, width)


def box_resize(images: Tensor, height: int, width: int) -> Tensor:
    """uint8 images resized by areas: along rows, rounded, then along columns, with weights of 22 binary digits."""
    resized = images.double()
    for axis, size in ((3, width), (2, height)):
        if resized.shape[axis] != size:
            weights = _box_weights(resized.shape[axis], size).to(images.device)
            total = resized @ weights.T if axis == 3 else weights @ resized
            resized = ((total + 2**21) / 2**22).floor().clamp(0, 255)
    return resized.to(torch.uint8)


def _box_weights(size: int, target: int) -> Tensor:
    """Whole numbers (target, size), as doubles: products of them with 8-bit values stay exact."""
    scale = size / target
    stretch = max(scale, 1.0)
    weights = torch.zeros(target, size, dtype=torch.float64)
    for row in range(target):
        center = (row + 0.5) * scale
        first, last = max(0, int(center - stretch / 2 + 0.5)), min(size, int(center + stretch / 2 + 0.5))
        covered = [x for x in range(first, last) if -0.5 < (x - center + 0.5) / stretch <= 0.5]
        for x in covered:
            weights[row, x] = math.floor(0.5 + 2**22 / len(covered))
    return weights


def jpeg_compression(images: Tensor, quality: int) -> Tensor:
    """Encoded and decoded by Pillow, one by one, in threads: the codec itself is the definition."""
    arrays = images.permute(0, 2, 3, 1).cpu().numpy()

    def through(array: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer)).reshape(array.shape)

    with ThreadPoolExecutor() as pool:
        decoded = np.stack(list(pool.map(through, arrays)))
    return torch.from_numpy(decoded).permute(0, 3, 1, 2).contiguous().to(images.device)
