"""Keeps the newest training state in one file, so that a killed process goes on where it was."""

import time
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from fisherexp.callbacks.checkpoint import newest, remove
from fisherexp.callbacks.curve import Curve, Rows, tell
from fisherexp.stop import Stopped, is_asked, take_signals_back


class Resumable(Checkpoint):
    """Writes `file` at the end of an epoch where `seconds` have passed, within an epoch after four times as many.

    A kill at any moment leaves the previous state whole. Lightning calls a Checkpoint after all other callbacks and
    after the module: what these do at the end of a batch or an epoch is in the state, and so is the curve so far. A fit
    that goes on tells it to the loggers again, which begin afresh in every process: what a killed process logged after
    its last state comes once.
    No state is written while gradients are summed up for a step (trainer.accumulate_grad_batches): it would lack them.
    With several processes only epoch ends are used: within an epoch each has sums and streams of its own. A run that
    is asked to stop (see stop.py) writes its state after the step at hand, a single process does, and raises Stopped,
    on all ranks after the same step.
    """

    def __init__(self, file: Path, seconds: float, curve: Curve) -> None:
        self.file, self.seconds, self.curve = file, seconds, curve
        self._saved = time.monotonic()
        self._earlier: Rows = []
        self._coming: Rows = []

    def newest(self) -> str | None:
        """The state to go on from, if there is one."""
        found = newest(self.file)
        return None if found is None else str(found)

    def remove(self) -> None:
        """The fit is at its end."""
        remove(self.file)

    def state_dict(self) -> dict[str, Any]:
        return {"curve": [*self.curve.rows, *self._coming]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._earlier = state["curve"]

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        tell(trainer.loggers, self._earlier)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        take_signals_back()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:
            return  # the end of the epoch follows, and is the better place
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
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
            row = epoch_row(trainer)
            self._coming = [] if row is None else [row]
            self._save(trainer)
            self._coming = []
            if asked and row is not None:  # Lightning would come to it after this
                tell(trainer.loggers, [row])
        if asked:
            raise Stopped

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.file, weights_only=False)
        self._saved = time.monotonic()


def epoch_row(trainer: Trainer) -> tuple[int, dict[str, float]] | None:
    """(step, figures) that Lightning logs of the epoch that ends, once all callbacks are done with it; None where
    there are none. A fit that goes on from a state saved at this moment never comes to it."""
    figures = trainer._logger_connector.metrics["log"]
    if not figures:
        return None
    figures = {name: float(value) for name, value in figures.items()}
    if "step" in figures:
        return int(figures.pop("step")), figures
    return trainer.fit_loop.epoch_loop._batches_that_stepped - 1, {"epoch": trainer.current_epoch} | figures
