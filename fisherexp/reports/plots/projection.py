"""Last-layer features of mixtures of three classes, a column per method (runs with callbacks=[neural_collapse])."""

from pathlib import Path
from typing import Any

from fisherexp.figures import canvas
from fisherexp.reports.grouping import Record, rows
from fisherexp.reports.plots import Request
from fisherexp.reports.plots._left import tensors
from fisherexp.reports.plots._style import COLORS, named, one_problem

FILE = "neural_collapse.safetensors"


def draw(records: list[Record], request: Request) -> Any:
    """The last epoch of each method's first seed; from their color at λ = 0 or 1 to black at λ = 1/2."""
    import numpy as np

    problem = one_problem(records, request.over)
    pictures = {}
    for name, row in named(rows(records, request.over)).items():
        run = min(row.runs, key=lambda run: run["seed"])
        if (file := Path(run["folder"]) / FILE).is_file():
            pictures[name] = tensors(file)
    if not pictures:
        raise ValueError(f"no run left a {FILE}: run with callbacks=[neural_collapse]")
    figure, axes = canvas(2, len(pictures), (3.1 * len(pictures) + 0.6, 6.4), squeeze=False)
    for column, (name, seen) in zip(axes.T, pictures.items(), strict=True):
        shade = 2 * np.abs(seen["picture/lambda"][-1] - 0.5)
        both = np.concatenate([seen["picture/same"][-1], seen["picture/different"][-1]])
        reach = 1.15 * np.quantile(np.linalg.norm(both, axis=1), 0.99)  # stray points may lie outside
        ends = seen["picture/rows"][-1]
        ends = ends * (0.85 * reach / np.linalg.norm(ends, axis=1).max())
        for panel, kind, color in zip(column, ("same", "different"), COLORS[1::-1], strict=True):
            points = seen[f"picture/{kind}"][-1]
            panel.scatter(
                points[:, 0], points[:, 1], s=4, linewidths=0, c=shade, cmap=_from_black(color), vmin=0, vmax=1
            )
            for end in ends:
                panel.plot([0, end[0]], [0, end[1]], color="#777777", linewidth=0.8, zorder=0)
            panel.plot(ends[:, 0], ends[:, 1], "^", color=COLORS[2], markeredgecolor="k", markersize=8)
            panel.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
        column[0].set_title(name, fontsize=11)
    axes[0, 0].set_ylabel("mixtures within a class")
    axes[1, 0].set_ylabel("mixtures of two classes")
    figure.suptitle(f"{problem}; triangles: directions of the classifier; black: λ = 1/2", fontsize=9)
    return figure


def _from_black(color: str) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(color, ["#000000", color])
