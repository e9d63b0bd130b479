"""Other valid values of an option, made up from its type."""

import typing
from typing import Any

from fisherexp.config import types


def alternatives(annotation: str, value: Any) -> list[Any]:
    """Values other than the given one that the annotation may allow, likely ones first: every other choice of a
    Literal, the other truth, numbers below and above, shorter lists. Bounds are not looked at. Empty where nothing is
    known of the type.
    """
    choices = _choices(annotation)
    if choices and not isinstance(value, list):
        found = [*choices]
    elif isinstance(value, bool):
        found = [not value]
    elif isinstance(value, list):
        firsts = [[other, *value[1:]] for other in (choices or (alternatives(annotation, value[0]) if value else []))]
        found = [value[:-1], value[1:], *firsts, [1]]
    elif isinstance(value, int) and "float" not in annotation:
        found = [value // 2, value + 1, 7, 3]
    elif isinstance(value, int | float):
        found = [value / 2, 2 * value, 0.5, 0.1, 10.0]
    elif value is None and "bool" in annotation:
        found = [True, False]
    elif value is None:
        found = [1, 2, 3, 0.5, 0.1]
    else:
        found = []
    if "None" in annotation:
        found.append(None)
    return [other for n, other in enumerate(found) if other != value and other not in found[:n]]


def _choices(annotation: str) -> list[Any]:
    """The members of the Literals an annotation names."""
    try:
        wanted = eval(annotation, {"Literal": typing.Literal, "Any": typing.Any}, vars(types))
    except (NameError, TypeError):
        return []

    def members(wanted: Any) -> list[Any]:
        if typing.get_origin(wanted) is typing.Literal:
            return list(typing.get_args(wanted))
        return [member for part in typing.get_args(wanted) for member in members(part)]

    return members(wanted)
