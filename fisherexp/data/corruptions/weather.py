"""Snow, frost and fog. (Spatter has a file of its own.)"""

import torch
from torch import Tensor

from fisherexp.data.corruptions.filters import luma, motion_blur, separable, to_bytes, unit, zoom_matrix
from fisherexp.data.corruptions.noise import Shape


def snow_draws(count: int, shape: Shape, constants: tuple, generator: torch.Generator) -> dict[str, Tensor]:
    """Standard normal flakes (N, 1, H, W) and the direction they fall, uniform in -135 … -45 degrees."""
    flakes = torch.randn(count, 1, *shape[1:], generator=generator)
    return {"flakes": flakes, "degrees": torch.rand(count, generator=generator) * 90 - 135}


def snow(
    images: Tensor,
    mean: float,
    sigma: float,
    zoom: float,
    threshold: float,
    radius: float,
    blur: float,
    weight: float,
    *,
    flakes: Tensor,
    degrees: Tensor,
) -> Tensor:
    """Bright flakes, enlarged and smeared, over a whitened image; the same flakes again, turned by 180 degrees."""
    height, width = images.shape[-2:]
    layer = separable(mean + sigma * flakes.double(), zoom_matrix(height, zoom), zoom_matrix(width, zoom))
    layer = to_bytes(layer.masked_fill(layer < threshold, 0))
    layer = unit(motion_blur(layer, radius, blur, degrees), torch.float32)
    clean = unit(images, torch.float32)
    whitened = weight * clean + (1 - weight) * torch.maximum(clean, luma(clean) * 1.5 + 0.5)
    return to_bytes(whitened + layer + layer.flip(-2, -1))


def frost(images: Tensor, weight: float, frost_weight: float, scale: float, *, crops: Tensor) -> Tensor:
    """weight · image + frost_weight · texture, for crops of textures (N, 3, H, W); see frost.py for their `scale`."""
    crops = crops.double() if images.shape[1] == 3 else luma(crops.double())
    return (weight * images.double() + frost_weight * crops).clamp(0, 255).to(torch.uint8)


def fog_draws(count: int, shape: Shape, constants: tuple, generator: torch.Generator) -> dict[str, Tensor]:
    """Uniform values in [-1, 1), one for each point of a square map (N, M, M), M the next power of two."""
    side = 1 << (max(shape[1:]) - 1).bit_length()
    return {"wobble": torch.rand(count, side, side, generator=generator) * 2 - 1}


def fog(images: Tensor, amount: float, decay: float, *, wobble: Tensor) -> Tensor:
    """A cloud of `amount` is added and the sum scaled back to the image's own maximum."""
    clean = unit(images)
    brightest = clean.amax((1, 2, 3), keepdim=True)
    cloud = plasma(wobble.double(), decay)[:, None, : images.shape[2], : images.shape[3]]
    return to_bytes((clean + amount * cloud) * brightest / (brightest + amount))


def plasma(wobble: Tensor, decay: float) -> Tensor:
    """Fractal heights in [0, 1] by the diamond-square algorithm on a torus: (N, M, M), M a power of two.

    Every point but the first is the mean of four neighbors plus its own value of `wobble` times the square of the
    current roughness (squared in the published code), which begins at 100 and is divided by `decay` at each halving.
    """
    heights = torch.zeros_like(wobble)
    step, roughness = wobble.shape[-1], 100.0
    while step >= 2:
        half = step // 2

        def corners(top: int, left: int, step: int = step) -> Tensor:
            return heights[:, top::step, left::step]

        def settle(top: int, left: int, total: Tensor, step: int = step, size: float = roughness**2) -> None:
            heights[:, top::step, left::step] = total / 4 + size * wobble[:, top::step, left::step]

        grid = corners(0, 0)
        square = grid + grid.roll(-1, 1)
        settle(half, half, square + square.roll(-1, 2))
        center = corners(half, half)
        settle(0, half, center + center.roll(1, 1) + grid + grid.roll(-1, 2))
        settle(half, 0, center + center.roll(1, 2) + grid + grid.roll(-1, 1))
        step, roughness = half, roughness / decay
    heights = heights - heights.amin((1, 2), keepdim=True)
    return heights / heights.amax((1, 2), keepdim=True)
