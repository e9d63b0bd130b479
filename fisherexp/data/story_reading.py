"""What pictures of the story world show, by the nearest of all pictures there could be."""

import torch
from torch import Tensor

from fisherexp.data.story_world import COLORS, CORNERS, GROUNDS, LIGHTS, MASKS, PATTERNS, SHAPES, quarters


def seen_frames(pictures: Tensor) -> Tensor:
    """(n, 2): the place and corner whose other three quarters are nearest to the place's color."""
    errors = quarters(pictures)[:, None] - GROUNDS[:, None, :, None, None]  # (n, places, corners, 3, 5, 5)
    errors = errors.square().sum((-3, -2, -1))
    without = errors.sum(-1, keepdim=True) - errors
    nearest = without.flatten(1).argmin(1)
    return torch.stack([nearest // len(CORNERS), nearest % len(CORNERS)], dim=1)


def boxes(pictures: Tensor, corners: Tensor) -> Tensor:
    """The quarter `corners` (n,) of each picture: (n, 3, 5, 5)."""
    return quarters(pictures)[torch.arange(len(pictures)), corners]


def seen_identities(pictures: Tensor, asked: Tensor) -> Tensor:
    """(n, 2): the pattern and shape that fit best where the figure should be, in whatever color fits best.

    asked: (n, 2), the place and corner asked for.
    """
    box = boxes(pictures, asked[:, 1])[:, None]  # beside all figures there are: (n, figures, 3, 5, 5)
    mask = MASKS.repeat(len(PATTERNS), 1, 1)
    light = mask * LIGHTS.repeat_interleave(len(SHAPES), 0)
    color = fitted_color(box, light)
    ground = GROUNDS[asked[:, 0]][:, None, :, None, None]
    fitted = ground * (1 - mask[:, None]) + color[..., None, None] * light[:, None]
    nearest = (box - fitted).square().sum((-3, -2, -1)).argmin(1)
    return torch.stack([nearest // len(SHAPES), nearest % len(SHAPES)], dim=1)


def fitted_color(box: Tensor, light: Tensor) -> Tensor:
    """(…, 3): the color that, multiplied by light (…, 5, 5), is nearest to a figure's pixels in a box (…, 3, 5, 5)."""
    return (box * light.unsqueeze(-3)).sum((-2, -1)) / light.square().sum((-2, -1))[..., None]


def color_of_place(pictures: Tensor, identities: Tensor, frames: Tensor) -> float:
    """Correlation of the figure's color with its place's, both without their means over a story: 1, the color goes with
    the place; 0, it is the same in all frames, or has nothing to do with the place. How pale it is does not count.

    pictures: (stories, frames, 3, 10, 10). identities: (stories, 2). frames: (stories, frames, 2), as asked for.
    """
    light = MASKS[identities[:, 1]] * LIGHTS[identities[:, 0]]
    figures = boxes(pictures.flatten(0, 1), frames[..., 1].flatten()).unflatten(0, frames.shape[:2])
    found = fitted_color(figures, light[:, None])
    seen, places = (colors - colors.mean(1, keepdim=True) for colors in (found, COLORS[frames[..., 0]]))
    norms = seen.norm() * places.norm()
    return float((seen * places).sum() / norms) if norms > 0 else 0.0


def identity_distance(pictures: Tensor, shapes: Tensor, corners: Tensor) -> float:
    """Root mean square difference of the figure's pixels between two frames of a story, mean over pairs and stories.

    pictures: (stories, frames, 3, 10, 10). shapes: (stories,). corners: (stories, frames), where the figure should be.
    """
    stories, frames = corners.shape
    mask = MASKS[shapes]
    figures = boxes(pictures.flatten(0, 1), corners.flatten()).unflatten(0, (stories, frames)) * mask[:, None, None]
    squares = (figures[:, :, None] - figures[:, None]).square().sum((-3, -2, -1))
    differences = (squares / (3 * mask.sum((-2, -1)))[:, None, None]).sqrt()
    return float(differences.sum() / (stories * frames * (frames - 1)))
