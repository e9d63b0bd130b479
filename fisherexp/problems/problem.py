"""What every problem answers to the runner."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from torch import nn


class Problem(ABC):
    """kind: which methods it is for. provides: what it offers to methods that require something.

    headings: metric -> heading, of those that tables show. better: metric -> 'higher' or 'lower'.
    altered: options leave out or change something, so that published figures are of another protocol.
    has_test_loop: a network is evaluated by Lightning's test loop instead of `evaluate`.
    backbone: makes the run's network, put here by the runner; None where the method has none.
    """

    kind: ClassVar[str]
    provides: ClassVar[tuple[str, ...]] = ()
    headings: dict[str, str] = {}
    better: dict[str, str] = {}
    altered: bool = False
    has_test_loop: ClassVar[bool] = False
    backbone: Callable[..., nn.Module] | None = None

    @abstractmethod
    def load(self, seed: int) -> "Problem":
        """Read or make what it is about, once; returns itself. seed: of instances that are drawn."""

    @abstractmethod
    def checksum(self) -> str:
        """Hash of its content."""

    @abstractmethod
    def evaluate(self, solution: Any) -> dict[str, float]:
        """Metrics of what a method arrived at."""

    def about(self) -> dict[str, Any]:
        """What a record should say of it: plain containers."""
        return {}

    def leave_files(self, folder: Path) -> None:  # noqa: B027 - most leave none
        """Write what the evaluation wants to leave in the run's folder (figures, say)."""
