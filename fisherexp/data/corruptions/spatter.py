"""Spatter: drops of water with bright rims, or mud.

The water uses three operations of OpenCV that are reimplemented here for batches: Canny edges, the distance to them
through a 5×5 mask, and the equalization of histograms.
"""

import torch
from torch import Tensor

from fisherexp.data.corruptions.filters import LUMA, box_blur, correlate, gaussian_blur, inside, to_bytes, unit
from fisherexp.data.corruptions.noise import Shape

WATER = (175, 238, 238)
MUD = (63, 42, 20)
LOW, HIGH = 50, 150  # thresholds of Canny
FAR = 20  # distances are cut there
SHADE = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))


def spatter_draws(count: int, shape: Shape, constants: tuple, generator: torch.Generator) -> dict[str, Tensor]:
    """Standard normal values, one a pixel: (N, 1, H, W)."""
    return {"liquid": torch.randn(count, 1, *shape[1:], generator=generator)}


def spatter(
    images: Tensor,
    mean: float,
    sigma: float,
    blur: float,
    threshold: float,
    strength: float,
    mud: bool,
    *,
    liquid: Tensor,
) -> Tensor:
    """Drops where smoothed noise exceeds a threshold. An image that no drop falls on stays as it is.

    strength: of the water; σ of the smoothing of mud.
    """
    clean = unit(images, torch.float32)
    layer = gaussian_blur(mean + sigma * liquid.double(), blur)
    if mud:
        cover = gaussian_blur((layer > threshold).float(), strength)
        cover = cover.masked_fill(cover < 0.8, 0)
        return to_bytes(clean * (1 - cover) + _color(MUD, images) * cover)
    # Published with a cast that wraps around: where the liquid is thicker than 1 it begins anew at 0.
    drops = (layer.masked_fill(layer < threshold, 0) * 255).long().remainder(256).to(torch.uint8)
    light = drops * rims(drops)
    light = strength * light / light.amax((2, 3), keepdim=True).clamp(min=1)
    return to_bytes(clean + light * _color(WATER, images))


def rims(drops: Tensor) -> Tensor:
    """How water of thickness `drops` (N, 1, H, W) uint8 shines: float32, 0 … 255, integers."""
    distance = equalized(box_blur(edge_distance(edges(drops))).to(torch.uint8))
    shaded = correlate(distance.float(), torch.tensor(SHADE, dtype=torch.float32)).clamp(0, 255)
    return box_blur(shaded).round()


def edges(images: Tensor) -> Tensor:
    """Canny edges of uint8 images (N, 1, H, W), bool: Sobel gradients, L1 magnitude, thinned, hysteresis."""
    values = images.float()
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    dx, dy = (correlate(values, kernel, "nearest").long() for kernel in (sobel, sobel.T))
    strength = dx.abs() + dy.abs()
    shallow = round(0.4142135623730950488 * 2**15) * dx.abs()  # tan(22.5°), in OpenCV's fixed point
    rise = dy.abs() << 15
    horizontal, vertical = rise < shallow, rise > shallow + (dx.abs() << 16)
    sign = torch.where((dx ^ dy) < 0, -1, 1)
    before = {(y, x): _neighbor(strength, y, x, 0) for y, x in ((0, -1), (-1, 0), (-1, -1), (-1, 1))}
    after = {(-y, -x): _neighbor(strength, -y, -x, 0) for y, x in before}
    along = (strength > before[0, -1]) & (strength >= after[0, 1])
    across = (strength > before[-1, 0]) & (strength >= after[1, 0])
    falling = (strength > before[-1, -1]) & (strength > after[1, 1])
    rising = (strength > before[-1, 1]) & (strength > after[1, -1])
    ridge = torch.where(horizontal, along, torch.where(vertical, across, torch.where(sign > 0, falling, rising)))
    candidates = ridge & (strength > LOW)
    found = candidates & (strength > HIGH)
    while True:  # weak edges that touch a found one
        grown = torch.nn.functional.max_pool2d(found.float(), 3, 1, 1).bool() & candidates
        if torch.equal(grown, found):
            return found
        found = grown


def edge_distance(found: Tensor) -> Tensor:
    """Length of the shortest path to an edge (N, 1, H, W) by steps of 1, 1.4 and 2.1969, cut at FAR; float32.

    Lengths have 16 binary digits after the point, as OpenCV's.
    """
    far = FAR << 16
    distance = torch.where(found, 0, far)
    steps = {}
    for (y, x), length in {(0, 1): 1.0, (1, 0): 1.0, (1, 1): 1.4, (1, 2): 2.1969, (2, 1): 2.1969}.items():
        steps |= {(sign * y, turn * x): round(length * 2**16) for sign in (1, -1) for turn in (1, -1)}
    while True:
        further = distance
        for (y, x), length in steps.items():
            further = torch.minimum(further, _neighbor(distance, y, x, far) + length)
        if torch.equal(further, distance):
            return (distance / 2**16).float()
        distance = further


def equalized(images: Tensor) -> Tensor:
    """uint8 images (N, 1, H, W) with histograms made flat, as OpenCV does it; an image of one value keeps it."""
    flat = images.flatten(1).long()
    histogram = torch.zeros(len(flat), 256, device=images.device).scatter_add_(1, flat, torch.ones_like(flat).float())
    lowest = flat.amin(1, keepdim=True)
    first = histogram.gather(1, lowest)
    rest = flat.shape[1] - first
    table = ((histogram.cumsum(1) - first) * (255 / rest)).round()
    table = torch.where(rest > 0, table, lowest.float())
    return table.gather(1, flat).view_as(images).to(torch.uint8)


def _neighbor(values: Tensor, down: int, right: int, outside: float) -> Tensor:
    """The value `down` and `right` of each pixel, or `outside`."""
    height, width = values.shape[-2:]
    shifted = values.roll((-down, -right), (-2, -1))
    rows, columns = torch.arange(height, device=values.device) + down, torch.arange(width, device=values.device) + right
    within = (rows == inside(rows, height, "nearest"))[:, None] & (columns == inside(columns, width, "nearest"))
    return shifted.masked_fill(~within, outside)


def _color(color: tuple[int, int, int], images: Tensor) -> Tensor:
    """A color as intensities (C, 1, 1), as its luma for gray images."""
    if images.shape[1] == 1:
        color = (sum(weight * value for weight, value in zip(LUMA, color, strict=True)),)
    return torch.tensor(color, dtype=torch.float32, device=images.device)[:, None, None] / 255
