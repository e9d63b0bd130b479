"""What the data room asks of whoever keeps expensive results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor


class Store(Protocol):
    """Where data that are costly to make are kept, such as corrupted test sets: runs/store.py is one."""

    def get(
        self, kind: str, parts: dict[str, Any], build: Callable[[Path], tuple[dict[str, Tensor], dict[str, Any]]]
    ) -> Any:
        """An object with `tensors` by name: those of an earlier call with the same parts, else what `build` makes."""

    def code_of(self, *producers: Any) -> str:
        """Hash of the code that classes and functions work with; a part of whatever they make."""
