"""Figures of finished runs, one file per kind.

A kind is a module of this package with a docstring, whose first line describes it, and
`draw(records, request) -> matplotlib figure`, which raises ValueError where the records lack what it needs, and
Damaged where a file that a run left cannot be read.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fisherexp.config.problem import nearest


@dataclass(frozen=True)
class Request:
    """What the command line may choose: metric or config key of either axis, keys pooled like seeds. methods: all that
    other figures show, which keep their colors."""

    x: str | None = None
    y: str | None = None
    over: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()


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


def kind_named(name: str) -> Kind:
    """The kind of that name. Raises ValueError, with the nearest one, where there is none."""
    known = kinds()
    if name in known:
        return known[name]
    near = nearest(name, known)
    advice = f"; nearest: {near}" if near else ""
    raise ValueError(f"there is no plot '{name}' (there are: {', '.join(known)}){advice}")
