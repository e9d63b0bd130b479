"""Where the file of a module is, and whether it is ours: found without importing anything."""

import functools
import importlib.util
import os
import sys
from pathlib import Path

PROJECT = __name__.partition(".")[0]
LIBRARIES = {"site-packages", "dist-packages"}  # where distributions are installed


def is_ours(module: str) -> bool:
    """Is it code of the project or of a user? All but the standard library and installed distributions are."""
    return _is_ours(module.partition(".")[0], tuple(sys.path), os.getcwd())


def module_file(module: str) -> Path | None:
    """The file of a module, None where there is none. It is found from its top package, for `find_spec` of a submodule
    would import the parents."""
    return _module_file(module, tuple(sys.path), os.getcwd())


@functools.cache
def _is_ours(top: str, path: tuple[str, ...], folder: str) -> bool:
    if top == PROJECT:
        return True
    if not top or top in sys.stdlib_module_names or top == "__main__":
        return False
    places = _places(top)
    return bool(places) and not any(LIBRARIES & set(place.parts) for place in places)


def _places(top: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # imported in a way that leaves no spec
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin and os.path.isfile(spec.origin) else []


@functools.cache
def _module_file(module: str, path: tuple[str, ...], folder: str) -> Path | None:
    top, *rest = module.split(".")
    for place in _places(top):
        if place.is_file():
            return place if not rest and place.suffix == ".py" else None
        inside = Path(place, *rest)
        for file in (inside / "__init__.py", *([inside.with_suffix(".py")] if rest else [])):
            if file.is_file():
                return file
    return None
