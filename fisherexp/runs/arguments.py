"""What a function has been told beforehand, as plain containers: a part of the key of what it makes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from fisherexp.runs.artefact import weights_digest


def arguments(function: Callable[..., Any]) -> list[Any]:
    """Positional and named arguments of a partial function, none of any other. Of a tensor its shape and hash, of
    another object that is no plain container its name or its class's."""
    return [_plain(function.args), _plain(function.keywords)] if isinstance(function, partial) else []


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, Tensor):
        return weights_digest({str(tuple(value.shape)): value})
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)
