"""Upper loss over what it has cost."""

from collections.abc import Sequence
from pathlib import Path

from fisherexp.figures import BLUE, canvas, save_both


def draw(curve: Sequence[Sequence[float]], stem: Path) -> None:
    """curve: pairs of cost and upper loss."""
    figure, axes = canvas(1, 1, (4.6, 3.4))
    axes.plot(*zip(*curve, strict=True), color=BLUE, marker="." if len(curve) < 100 else "", drawstyle="steps-post")
    axes.set(xlabel="lower-level iterations and products", ylabel="upper loss")
    save_both(figure, stem)
