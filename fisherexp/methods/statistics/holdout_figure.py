"""What the training set, the holdout and fresh data say of a classifier as variables are added."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fisherexp.figures import BLUE, GREEN, ORANGE, canvas, save_both


def draw(sizes: Sequence[int], accuracies: Tensor, stem: Path) -> None:
    """accuracies: (K, 3) in [0, 1] on train, as the holdout reports it, on fresh data."""
    figure, axes = canvas(1, 1, (4.6, 3.4))
    looks = (("train", BLUE, "s"), ("holdout, as reported", ORANGE, "o"), ("fresh", GREEN, "^"))
    for (name, color, marker), shares in zip(looks, (100 * accuracies).unbind(1), strict=True):
        axes.plot(sizes, shares, color=color, marker=marker, markersize=4, label=name)
    axes.set(xlabel="variables", ylabel="accuracy (%)")
    axes.legend(frameon=False)
    save_both(figure, stem)
