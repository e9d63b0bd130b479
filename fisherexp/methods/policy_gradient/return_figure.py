"""The return over the episodes that were drawn, as a figure."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from fisherexp.figures import BLUE, GRAY, canvas, save_both

POINTS = 60  # each the mean of as many steps as it takes


def draw(episodes: Sequence[int], returns: Sequence[float], optimum: float | None, stem: Path) -> None:
    """Write `stem`.png and .pdf. episodes: drawn up to each step. returns: mean of those behind the step's gradient."""
    size = -(-len(returns) // POINTS)
    starts = range(0, len(returns), size)
    figure, axes = canvas(1, 1, (4.6, 3.4))
    axes.plot(
        [fmean(episodes[i : i + size]) for i in starts],
        [fmean(returns[i : i + size]) for i in starts],
        color=BLUE,
        label="episodes behind gradients" + (f", mean of {size} steps" if size > 1 else ""),
    )
    if optimum is not None:
        axes.axhline(optimum, color=GRAY, linestyle="--", linewidth=1, label="optimum")
    axes.set(xlabel="episodes drawn", ylabel="discounted return")
    axes.legend(frameon=False)
    save_both(figure, stem)
