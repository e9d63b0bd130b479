"""What a run is doing: a moving bar for each phase on a terminal, now and then a line elsewhere."""

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
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fisherexp.files import write_json

REFRESH_SECONDS = 0.2
LINE_SECONDS = 60.0  # a log hears of a long phase this often
TELL_SECONDS = 5.0


class PhaseProgress(Callback):
    """Shows how far the phase called `name` is: batches over all epochs of a fit, or over all parts of a test.

    how: 'bar' draws one; 'lines' prints a line at the end and, of a long phase, every LINE_SECONDS; 'auto' is a bar
    where somebody can see it. short: a phase of less than so many seconds gets no line. file: where to tell the same
    to other processes, every few seconds.
    """

    def __init__(
        self,
        name: str,
        how: Literal["auto", "bar", "lines", "off"] = "auto",
        short: float = 0.0,
        file: Path | None = None,
    ) -> None:
        self.name, self.short, self.file = name, short, file
        self.how = how if how != "auto" else ("bar" if sys.stderr.isatty() else "lines")
        self._bar: Progress | None = None
        self._task: Any = None
        self._begun = self._shown = self._told = 0.0
        self._first = self._done = self._steps = 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        steps = trainer.num_training_batches * (trainer.max_epochs or 1)
        self._start(trainer, steps, done=trainer.current_epoch * trainer.num_training_batches)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._advance(trainer, trainer.current_epoch * trainer.num_training_batches + batch_idx + 1)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._finish(trainer)

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._start(trainer, sum(trainer.num_test_batches), done=0)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._advance(trainer, self._done + 1)

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._finish(trainer)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _start(self, trainer: Trainer, steps: int, done: int) -> None:
        self._begun = self._shown = time.monotonic()
        self._first, self._done, self._steps = done, done, steps
        if self.how == "bar" and trainer.is_global_zero:
            columns = (
                TextColumn("{task.description:<28}"),
                BarColumn(),
                MofNCompleteColumn(),
                Rate(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=False)
            self._bar.start()
            self._task = self._bar.add_task(self.name, total=steps, completed=done, first=done)

    def _advance(self, trainer: Trainer, done: int) -> None:
        self._done, now = done, time.monotonic()
        if self.file is not None and now - self._told > TELL_SECONDS and trainer.is_global_zero:
            self._told = now
            write_json(self.file, {"phase": self.name, "step": done, "steps": self._steps})
        if self._bar is not None and now - self._shown > REFRESH_SECONDS:
            self._shown = now
            self._bar.update(self._task, completed=done)
            self._bar.refresh()
        elif self.how == "lines" and now - self._shown > LINE_SECONDS and trainer.is_global_zero:
            self._shown = now
            seconds = now - self._begun
            rate = (done - self._first) / seconds
            left = (self._steps - done) / rate
            print(f"{self.name:<28} {done} of {self._steps}, {rate:.3g} steps/s, {left:.0f} s left", file=sys.stderr)

    def _finish(self, trainer: Trainer) -> None:
        seconds = time.monotonic() - self._begun
        if self._bar is not None:
            self._bar.update(self._task, completed=self._steps)
            self._bar.refresh()
            self._bar.stop()
            self._bar = None
        elif self.how == "lines" and trainer.is_global_zero and seconds >= self.short:
            print(f"{self.name:<28} {seconds:8.1f} s", file=sys.stderr)


class Rate(ProgressColumn):
    """Steps per second since the phase began, or went on: with step `first`."""

    def render(self, task: Task) -> Text:
        seconds = task.finished_time or task.elapsed
        return Text(f"{(task.completed - task.fields['first']) / seconds:.3g} steps/s" if seconds else "")
