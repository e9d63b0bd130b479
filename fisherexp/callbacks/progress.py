"""One line per phase: a moving bar on a terminal, a line at the end elsewhere."""

import sys
import time
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fisherexp.files import write_json

REFRESH_SECONDS = 0.2
TELL_SECONDS = 5.0


class PhaseProgress(Callback):
    """Shows how far the phase called `name` is, counted in batches over all epochs.

    file: where to tell the same to other processes, every few seconds.
    """

    def __init__(
        self, name: str, how: Literal["auto", "bar", "lines", "off"] = "auto", file: Path | None = None
    ) -> None:
        self.name, self.file = name, file
        self.how = how if how != "auto" else ("bar" if sys.stderr.isatty() else "lines")
        self._bar: Progress | None = None
        self._task: Any = None
        self._begun = self._shown = self._told = 0.0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        steps = trainer.num_training_batches * (trainer.max_epochs or 1)
        self._start(trainer, steps, done=trainer.current_epoch * trainer.num_training_batches)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = trainer.current_epoch * trainer.num_training_batches + batch_idx + 1
        self._advance(done)
        now = time.monotonic()
        if self.file is not None and now - self._told > TELL_SECONDS and trainer.is_global_zero:
            self._told = now
            steps = trainer.num_training_batches * (trainer.max_epochs or 1)
            write_json(self.file, {"phase": self.name, "step": done, "steps": steps})

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._finish(trainer)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _start(self, trainer: Trainer, steps: float, done: int) -> None:
        self._begun = time.monotonic()
        if self.how == "bar" and trainer.is_global_zero:
            columns = (
                TextColumn("{task.description:<28}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), auto_refresh=False)
            self._bar.start()
            self._task = self._bar.add_task(self.name, total=steps, completed=done)

    def _advance(self, done: int) -> None:
        now = time.monotonic()
        if self._bar is not None and now - self._shown > REFRESH_SECONDS:
            self._shown = now
            self._bar.update(self._task, completed=done)
            self._bar.refresh()

    def _finish(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self._bar.tasks[0].total)
            self._bar.refresh()
            self._bar.stop()
        elif self.how == "lines" and trainer.is_global_zero:
            print(f"{self.name:<28} {time.monotonic() - self._begun:8.1f} s", file=sys.stderr)
