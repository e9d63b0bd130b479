"""Figures as files."""

from pathlib import Path
from typing import Any

from fisherexp.files import write_atomically

# Okabe and Ito's palette, which the color-blind can tell apart.
BLUE, ORANGE, GREEN, PURPLE, SKY, GRAY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#777777"


def canvas(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """An empty figure of `size` inches and its axes; no window system is asked for."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, figsize=size, layout="constrained")


def save(figure: Any, stem: Path) -> None:
    """Write `stem`.png and `stem`.pdf and forget the figure."""
    from matplotlib import pyplot

    for kind in ("png", "pdf"):
        write_atomically(
            stem.with_name(f"{stem.name}.{kind}"),
            lambda temporary, kind=kind: figure.savefig(temporary, format=kind, dpi=150),
        )
    pyplot.close(figure)
