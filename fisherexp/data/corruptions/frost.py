"""Textures of frost, and random crops of them.

The published textures are six photographs, of which the published code only ever uses the first five. Whoever has
them gives their folder; else five textures are generated: needles of ice in several directions, as bright as the
photographs on average.
"""

import functools
import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fisherexp.data.corruptions.noise import Shape
from fisherexp.data.errors import DataError
from fisherexp.seeds import generator as seeded

FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
# Mean red, green and blue and the deviation of brightness of the five photographs.
COLORS = ((78, 149, 166), (201, 205, 214), (201, 205, 214), (138, 153, 165), (112, 123, 135))
DEVIATIONS = (16, 22, 22, 28, 43)
SIDES = 4  # a generated texture is so many times as wide as a crop


def crop_draws(
    count: int, shape: Shape, constants: tuple, generator: torch.Generator, folder: Path | None = None
) -> dict[str, Tensor]:
    """Crops (N, 3, H, W), uint8, each of a random texture at a random place. `constants` end with the scale.

    Raises DataError for a folder without the textures, or with one too small for the crops.
    """
    height, width = shape[1:]
    scale = constants[-1]
    found = generated(height, width, scale) if folder is None else photographs(folder, scale, height, width)
    which, top, left = torch.rand(3, count, generator=generator, dtype=torch.float64)
    crops = torch.empty(count, 3, height, width, dtype=torch.uint8)
    for i, number in enumerate((which * len(found)).long().tolist()):
        texture = found[number]
        y, x = (int(u[i] * (s - n)) for u, s, n in ((top, texture.shape[1], height), (left, texture.shape[2], width)))
        crops[i] = texture[:, y : y + height, x : x + width]
    return {"crops": crops}


def folder_checksum(folder: Path) -> str:
    """Hash of the textures in a folder. Raises DataError where one is missing."""
    digest = hashlib.blake2b(digest_size=8)
    for name in FILES:
        try:
            digest.update((folder / name).read_bytes())
        except OSError as error:
            raise DataError(f"frost texture {folder / name} cannot be read: {error}") from None
    return digest.hexdigest()


@functools.lru_cache(maxsize=4)
def photographs(folder: Path, scale: float, height: int, width: int) -> tuple[Tensor, ...]:
    """The five published textures, uint8 (3, h, w), scaled without smoothing (as OpenCV's resize)."""
    textures = []
    for name in FILES:
        try:
            with Image.open(folder / name) as image:
                texture = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        except OSError as error:
            raise DataError(f"frost texture {folder / name} cannot be read: {error}") from None
        if scale != 1:
            scaled = F.interpolate(texture[None].double(), scale_factor=scale, mode="bilinear", align_corners=False)
            texture = scaled[0].round().to(torch.uint8)
        if texture.shape[1] <= height or texture.shape[2] <= width:
            size = "×".join(map(str, texture.shape[1:]))
            raise DataError(f"frost texture {folder / name}, scaled by {scale}: {size} is too small for the images")
        textures.append(texture)
    return tuple(textures)


@functools.lru_cache(maxsize=4)
def generated(height: int, width: int, scale: float) -> tuple[Tensor, ...]:
    """Five textures, uint8 (3, SIDES·H, SIDES·W), the same on every machine.

    Like the photographs they are made at full size and scaled without smoothing.
    """
    step = round(1 / scale)
    size = SIDES * height * step, SIDES * width * step
    return tuple(
        _texture(*size, color, deviation, seeded("frost", number))[:, ::step, ::step].contiguous()
        for number, (color, deviation) in enumerate(zip(COLORS, DEVIATIONS, strict=True))
    )


def _texture(height: int, width: int, color: tuple, deviation: float, generator: torch.Generator) -> Tensor:
    """Ridges of noise that is long in one direction and short across it, over some directions."""
    down, right = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None]
    ice = torch.zeros(height, width)
    for angle in torch.rand(3, generator=generator) * torch.pi:
        along, across = right * angle.cos() + down * angle.sin(), down * angle.cos() - right * angle.sin()
        spectrum = 1 / (0.001 + (4 * along) ** 2 + across**2)
        noise = torch.fft.ifft2(torch.fft.fft2(torch.randn(height, width, generator=generator)) * spectrum).real
        ice -= (noise / noise.std()).abs()  # bright where the noise changes sign
    ice = (ice - ice.mean()) / ice.std()
    texture = torch.tensor(color, dtype=torch.float32)[:, None, None] + deviation * ice
    return texture.clamp(0, 255).to(torch.uint8)
