"""What a Lightning loop is doing, shown by a meter."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from fisherexp.callbacks.meter import Meter


class PhaseProgress(Callback):
    """Shows batches of a whole fit, with epoch and loss, or of all parts of a test; by the first process."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        steps = trainer.num_training_batches * (trainer.max_epochs or 1)
        self._begin(trainer, steps, trainer.current_epoch * trainer.num_training_batches)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero:
            done = trainer.current_epoch * trainer.num_training_batches + batch_idx + 1
            # To read a loss makes a GPU wait: the meter asks for it only when it draws.
            self.meter.advance(done, lambda epoch=trainer.current_epoch + 1: _epoch_and_loss(trainer, epoch, outputs))

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
        if trainer.is_global_zero:
            self.meter.advance(self.meter.done + 1)

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._finish(trainer)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self.meter.stop()

    def _begin(self, trainer: Trainer, steps: int, done: int) -> None:
        if trainer.is_global_zero:
            self.meter.begin(steps, done)

    def _finish(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            self.meter.finish()


def _epoch_and_loss(trainer: Trainer, epoch: int, outputs: Any) -> str:
    """`epoch 3/10  loss 0.120`: that of the last batch; of a method that steps by itself, what it logged last."""
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    if loss is not None:
        loss = float(loss) * trainer.accumulate_grad_batches  # Lightning has divided it
    else:
        loss = trainer.callback_metrics.get("train/loss")
    of = f"epoch {epoch}/{trainer.max_epochs}"
    return of if loss is None else f"{of}  loss {float(loss):#.3g}"
