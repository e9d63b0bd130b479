"""Figures of finished runs, one file per kind.

A kind is a module of this package with a docstring, whose first line describes it, and
`draw(records, request) -> matplotlib figure`, which raises ValueError where the records lack what it needs, and
Damaged where a file that a run left cannot be read.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fisherexp.files import write_atomically


@dataclass(frozen=True)
class Request:
    """What the command line may choose: metric or config key of either axis, keys pooled like seeds."""

    x: str | None = None
    y: str | None = None
    over: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """One kind of figure."""

    description: str
    draw: Callable[[list[dict[str, Any]], Request], Any]


def kinds() -> dict[str, Kind]:
    """Every kind by name."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            kind = importlib.import_module(f"{__name__}.{module.name}")
            found[module.name] = Kind((kind.__doc__ or "").strip().splitlines()[0], kind.draw)
    return found


def save(figure: Any, files: list[Path]) -> list[Path]:
    """Write a figure to each file, in the format of its ending, and forget it. Raises ValueError for other endings."""
    from matplotlib import pyplot

    for file in files:
        kind = file.suffix.removeprefix(".")
        if kind not in figure.canvas.get_supported_filetypes():
            raise ValueError(f"{file}: a figure is written as .png, .pdf or .svg")
        write_atomically(file, lambda temporary, kind=kind: figure.savefig(temporary, format=kind, dpi=150))
    pyplot.close(figure)
    return files
