"""A grid of generated images, as a figure."""

from pathlib import Path

import torch
from torch import Tensor

from fisherexp.figures import canvas, save_both

INCHES = 0.5  # of one image


def grid(images: Tensor, columns: int, gap: int = 1) -> Tensor:
    """Images (n, C, H, W) in [0, 1], row by row on white: (C, rows·(H + gap) + gap, columns·(W + gap) + gap).

    The last row is filled up with white.
    """
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    cells = images.new_ones(rows * columns, channels, height + gap, width + gap)
    cells[:count, :, gap:, gap:] = images
    cells = cells.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    return torch.nn.functional.pad(cells, (0, gap, 0, gap), value=1.0)


def draw_samples(images: Tensor, stem: Path, columns: int = 10) -> None:
    """Write `stem`.png and .pdf: images (n, C, H, W) with C = 1 or 3, pixels in [-1, 1] and cut there."""
    sheet = grid((images.clamp(-1, 1) + 1) / 2, columns)
    rows = -(-len(images) // columns)
    figure, axes = canvas(1, 1, (INCHES * columns, INCHES * rows))
    if len(sheet) == 1:
        axes.imshow(sheet[0].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(sheet.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.axis("off")
    save_both(figure, stem)
