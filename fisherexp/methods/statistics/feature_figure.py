"""Which features count most: bars, the largest above."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fisherexp.figures import BLUE, canvas, save_both

SHOWN = 20


def draw(names: Sequence[str], weight: np.ndarray, label: str, stem: Path) -> None:
    """weight: (d,), what a feature counts for."""
    order = np.argsort(weight)[-SHOWN:]
    figure, axes = canvas(1, 1, (5.2, 0.8 + 0.22 * len(order)))
    axes.barh(np.arange(len(order)), weight[order], color=BLUE)
    axes.set_yticks(np.arange(len(order)), [names[place] for place in order], fontsize="small")
    axes.set(xlabel=label)
    save_both(figure, stem)
