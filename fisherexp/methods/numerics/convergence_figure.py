"""Error over iterations, with the two stages of a solver told apart."""

from collections.abc import Sequence
from pathlib import Path

from fisherexp.figures import BLUE, GRAY, ORANGE, canvas, save_both


def draw(curve: Sequence[Sequence[float]], sweeps: int, tolerance: float, stem: Path) -> None:
    """curve: pairs of iterations and L1 error of the marginals, the first `sweeps` iterations Sinkhorn's."""
    figure, axes = canvas(1, 1, (4.6, 3.4))
    first = [point for point in curve if point[0] <= sweeps]
    second = [first[-1], *(point for point in curve if point[0] > sweeps)]
    for points, color, name in ((first, BLUE, "Sinkhorn"), (second, ORANGE, "Newton")):
        if len(points) > 1:
            marker = "." if len(points) < 100 else ""
            axes.plot(*zip(*points, strict=True), color=color, marker=marker, label=name)
    axes.axhline(tolerance, color=GRAY, linestyle="--", linewidth=1, label="tolerance")
    axes.set(xlabel="iterations", ylabel="L1 error of the marginals", yscale="log")
    axes.legend(frameon=False)
    save_both(figure, stem)
