"""Empty figures, the palette, and figures as files. No window system and no state of pyplot is touched: a notebook that
draws something of its own goes on with its own backend."""

import io
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fisherexp.files import write_atomically

# Okabe and Ito's palette, which the color-blind can tell apart.
BLUE, ORANGE, GREEN, PURPLE, SKY, GRAY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#777777"
DOTS_PER_INCH = 150
MOST_NAMES = 60  # along an axis, at a fifth of an inch each


def named_every(count: int) -> int:
    """Of so many names along an axis, every how many-th is written: the others would overlap."""
    return -(-count // MOST_NAMES)


class Drawing(Figure):
    """A matplotlib figure that notebooks show by itself, whatever their backend."""

    def _repr_png_(self) -> bytes:
        drawn = io.BytesIO()
        self.savefig(drawn, format="png", dpi=DOTS_PER_INCH)
        return drawn.getvalue()


def canvas(rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 4.4), **options: Any) -> tuple[Any, Any]:
    """An empty figure of `size` inches and its axes; options: those of `Figure.subplots` (sharex, squeeze, …)."""
    figure = Drawing(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **options)


def save(figure: Figure, file: Path) -> None:
    """Write a figure in the format that the file's ending names. Raises ValueError for another ending."""
    kind = file.suffix.removeprefix(".")
    if kind not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"{file}: a figure is written as .png, .pdf or .svg")
    write_atomically(file, lambda temporary: figure.savefig(temporary, format=kind, dpi=DOTS_PER_INCH))


def save_both(figure: Figure, stem: Path) -> None:
    """Write `stem`.png and `stem`.pdf, the axes in the same places: to find those takes a third of the time."""
    save(figure, stem.with_name(f"{stem.name}.png"))
    engine = figure.get_layout_engine()
    figure.set_layout_engine("none")
    save(figure, stem.with_name(f"{stem.name}.pdf"))
    figure.set_layout_engine(engine)
