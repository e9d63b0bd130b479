"""Keeps the newest training state in one file, so that a killed process goes on where it was."""

import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from fisherexp.stop import Stopped, is_asked, take_signals_back


class Resumable(Callback):
    """Writes `file` at the end of an epoch where `seconds` have passed, within an epoch after four times as many.

    The state is written to a temporary name and renamed: a kill at any moment leaves the previous one whole.
    With several processes only epoch ends are used: within an epoch each has sums and streams of its own. A run that
    is asked to stop (see stop.py) writes its state after the step at hand, a single process does, and raises Stopped,
    on all ranks after the same step.
    """

    def __init__(self, file: Path, seconds: float) -> None:
        self.file, self.seconds = file, seconds
        self._saved = time.monotonic()

    @property
    def checkpoint(self) -> str | None:
        """The state to go on from, if there is one."""
        return str(self.file) if self.file.is_file() else None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        take_signals_back()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.is_last_batch:
            return  # the end of the epoch follows, and is the better place
        asked = trainer.strategy.reduce_boolean_decision(is_asked(), all=False)
        if trainer.world_size == 1 and (asked or time.monotonic() - self._saved > 4 * self.seconds):
            self._save(trainer)
        if asked:
            raise Stopped

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.current_epoch + 1 >= (trainer.max_epochs or 0):
            return
        asked = trainer.strategy.reduce_boolean_decision(is_asked(), all=False)
        if asked or trainer.world_size > 1 or time.monotonic() - self._saved > self.seconds:
            self._save(trainer)
        if asked:
            raise Stopped

    def _save(self, trainer: Trainer) -> None:
        temporary = self.file.with_suffix(".writing")
        trainer.save_checkpoint(temporary, weights_only=False)
        if trainer.is_global_zero:
            temporary.replace(self.file)
        self._saved = time.monotonic()
