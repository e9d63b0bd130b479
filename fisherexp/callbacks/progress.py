"""What a Lightning loop is doing, shown by a meter."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from fisherexp.callbacks.meter import Meter


class PhaseProgress(Callback):
    """Shows batches over all epochs of a fit, or over all parts of a test, by the first process."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        steps = trainer.num_training_batches * (trainer.max_epochs or 1)
        self._begin(trainer, steps, trainer.current_epoch * trainer.num_training_batches)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._advance(trainer, trainer.current_epoch * trainer.num_training_batches + batch_idx + 1)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._finish(trainer)

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._begin(trainer, sum(trainer.num_test_batches), 0)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._advance(trainer, self.meter.done + 1)

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._finish(trainer)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self.meter.stop()

    def _begin(self, trainer: Trainer, steps: int, done: int) -> None:
        if trainer.is_global_zero:
            self.meter.begin(steps, done)

    def _advance(self, trainer: Trainer, done: int) -> None:
        if trainer.is_global_zero:
            self.meter.advance(done)

    def _finish(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            self.meter.finish()
