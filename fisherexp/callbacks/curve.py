"""The curve of a fit: every figure that was logged, in order, so that a fit that goes on tells it from the start.

It lies in every saved state: of 100,000 rows with three figures that takes 0.3 s and 5 MiB.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

Rows = list[tuple[int | None, dict[str, float]]]


class Curve(Logger):
    """Keeps rows (step, figures) of what the other loggers are told. folder: that of the loop."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.rows: Rows = []
        self._folder = folder

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.rows.append((step, {name: float(value) for name, value in metrics.items()}))

    def log_hyperparams(self, *args: Any, **options: Any) -> None:
        pass

    @property
    def name(self) -> str:
        return "curve"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self._folder)


def tell(loggers: Iterable[Logger], rows: Iterable) -> None:
    """Log the rows of an earlier process, or of one that a store kept, as if they came in now."""
    for step, figures in rows:
        for logger in loggers:
            logger.log_metrics(dict(figures), step)
