"""A true and a learned score as arrows over the density, and points drawn by the learned one."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fisherexp.data.gaussian_mixture import GaussianMixture
from fisherexp.figures import BLUE, GRAY, ORANGE, canvas, save_both

ARROWS, CONTOURS, EXTENT = 18, 80, 3.6
LONGEST = 5.0  # arrows are cut there: far out the score is long and of no interest


def draw_scores(mixture: GaussianMixture, learned: Callable[[Tensor], Tensor], samples: Tensor, stem: Path) -> None:
    """Write `stem`.png and .pdf: a density in the plane, samples (n, 2)."""
    figure, axes = canvas(1, 3, (10.2, 3.6))
    line = torch.linspace(-EXTENT, EXTENT, CONTOURS)
    density = mixture.log_density(torch.cartesian_prod(line, line)).exp().unflatten(0, (CONTOURS, CONTOURS))
    few = torch.linspace(-EXTENT, EXTENT, ARROWS)
    places = torch.cartesian_prod(few, few)
    # Where there are no points there is nothing to learn from.
    places = places[mixture.log_density(places) > density.max().log() - 7]
    for place, score, color, title in (
        (axes[0], mixture.score, BLUE, "true score"),
        (axes[1], learned, ORANGE, "learned score"),
    ):
        arrows = score(places)
        arrows = arrows * (LONGEST / arrows.norm(dim=1, keepdim=True)).clamp(max=1)
        place.quiver(*places.T.numpy(), *arrows.T.numpy(), color=color, angles="xy", scale=80)
        place.set(title=title)
    axes[2].scatter(*samples.T.numpy(), s=2, color=ORANGE)
    axes[2].set(title="drawn by it")
    for place in axes:
        place.contour(line.numpy(), line.numpy(), density.T.numpy(), 6, colors=GRAY, linewidths=0.5)
        place.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), aspect="equal")
    save_both(figure, stem)
