"""Effective parameters and errors of a smoother as it grows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fisherexp.figures import BLUE, ORANGE, canvas, save_both


def draw(curve: Sequence[Mapping[str, float]], size: str, stem: Path) -> None:
    """curve: a mapping for each step with sizes under 'trees'. size: what the steps count."""
    figure, axes = canvas(1, 2, (7.2, 3.0))
    sizes = [found["trees"] for found in curve]
    for panel, key, words in zip(
        axes, ("parameters", "error"), ("effective parameters", "mean sq. error"), strict=True
    ):
        for part, color in (("train", BLUE), ("test", ORANGE)):
            panel.plot(sizes, [found[f"{part}_{key}"] for found in curve], ".-", color=color, label=part)
        panel.set(xlabel=size, ylabel=words)
    axes[0].legend(frameon=False)
    save_both(figure, stem)
