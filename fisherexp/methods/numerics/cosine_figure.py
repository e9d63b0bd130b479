"""Cosines of vectors with their mean direction, and the density that a fit expects of them."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fisherexp.figures import BLUE, ORANGE, SKY, canvas, save_both


def draw(cosines: Mapping[str, Tensor], grid: Tensor, density: Tensor, stem: Path) -> None:
    """cosines: part -> (n,). density: of the fit at the cosines `grid`."""
    figure, axes = canvas(1, 1, (4.6, 3.4))
    for (name, values), color in zip(cosines.items(), (SKY, BLUE), strict=False):
        bins = max(10, round(len(values) ** 0.5))
        axes.hist(values.numpy(), bins=bins, density=True, histtype="step", color=color, label=name)
    axes.plot(grid.numpy(), density.numpy(), color=ORANGE, label="fit")
    axes.set(xlabel="cosine with the mean direction", ylabel="density")
    axes.legend(frameon=False)
    save_both(figure, stem)
