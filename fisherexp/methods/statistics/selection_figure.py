"""Scores of the texts of a pool: of those that were chosen, and of the kind that was wanted where it is known."""

from pathlib import Path

import numpy as np
from torch import Tensor

from fisherexp.figures import BLUE, GREEN, ORANGE, SKY, canvas, save_both


def draw(scores: np.ndarray, chosen: list[int], wanted: Tensor | None, stem: Path) -> None:
    """scores: (n,), for each word where they grow with a text. wanted: bool (n,)."""
    figure, axes = canvas(1, 1 if wanted is None else 2, (3.8 if wanted is None else 7.2, 3.0), squeeze=False)
    among = np.zeros(len(scores), dtype=bool)
    among[chosen] = True
    panels = [(among, ("left out", "chosen"), (SKY, BLUE))]
    panels += [] if wanted is None else [(wanted.numpy(), ("others", "of the target's kind"), (ORANGE, GREEN))]
    for panel, (mark, names, colors) in zip(axes[0], panels, strict=True):
        panel.hist([scores[~mark], scores[mark]], bins=40, stacked=True, color=colors, label=names)
        panel.set(xlabel="score", ylabel="texts")
        panel.legend(frameon=False, fontsize="small")
    save_both(figure, stem)
