"""Accumulates curvature beside a fit or test loop, from the batches the loop goes through anyway."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule, Trainer

from fisherexp.callbacks.watcher import Watcher
from fisherexp.config.types import FileName
from fisherexp.curvature import Accumulator
from fisherexp.files import write_atomically
from fisherexp.methods.curvature import reduce_over_ranks


class Accumulate(Watcher):
    """Feeds every batch to an accumulator and saves its result as `file` in the run's folder.

    accumulator: makes one from a model: fisherexp.curvature.DiagonalAccumulator or KFACAccumulator, say, with its
        options given (`_partial_: true` in a config).
    during: 'test' looks at the finished model, on the parts it is evaluated on; 'fit' at the last epoch of training,
        each batch at the weights of its own step.
    Sums are reduced over ranks, so one process and several give the same result.
    """

    needs_gradients = True

    def __init__(self, accumulator: Callable[..., Any], during: Literal["fit", "test"], file: FileName) -> None:
        self.make, self.during, self.file = accumulator, during, file
        self.watches_fit = during == "fit"
        self.accumulator: Accumulator | None = None

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        if self.during == "fit" and trainer.current_epoch == (trainer.max_epochs or 1) - 1:
            self.accumulator = self.make(module.model, loss=module.objective.likelihood)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._add(batch)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._finish(trainer)

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        if self.during == "test":
            self.accumulator = self.make(module.model, loss=module.objective.likelihood)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._add(batch)

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._finish(trainer)

    def _add(self, batch: Any) -> None:
        if self.accumulator is not None:
            with torch.enable_grad():
                self.accumulator.update(batch.inputs, batch.targets, batch.weights)

    def _finish(self, trainer: Trainer) -> None:
        if self.accumulator is None:
            return
        reduce_over_ranks(self.accumulator)
        if trainer.is_global_zero:
            write_atomically(Path(trainer.default_root_dir) / self.file, self.accumulator.result().save)
        self.accumulator = None
