"""Curvature that takes several passes over the data, measured at the end of a loop or along a training."""

import copy
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule, Trainer
from safetensors.torch import save_file
from torch import Tensor

from fisherexp.callbacks.watcher import Watcher
from fisherexp.config.types import Count, FileName
from fisherexp.data.batch import Batch
from fisherexp.data.loader import Loader
from fisherexp.files import write_atomically


class Measure(Watcher):
    """Calls `measure(model, batches, loss=…)` and keeps its tensors as `file` (safetensors) in the run's folder.

    measure: one of measures.py, say, with its options given (`_partial_: true` in a config).
    during: 'test' looks at the finished model, on the parts it is evaluated on. 'fit' looks after every `every`-th
        epoch
        and after the last one, on that epoch's training batches; tensors then have one entry per look in front, and
        `epoch` says when, counted from 1.
    first: only as many batches (per rank), for what is costly.
    Scalars and short vectors also go to the run's loggers.
    """

    needs_gradients = True

    def __init__(
        self,
        measure: Callable[..., dict[str, Tensor]],
        during: Literal["fit", "test"],
        file: FileName,
        every: Count = 1,
        first: Count | None = None,
    ) -> None:
        self.measure, self.during, self.file, self.every, self.first = measure, during, file, every, first
        self.watches_fit = during == "fit"
        self.looks: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: object) -> None:
        # Before the epoch's end, where the training state is saved: a resumed run has every look.
        epoch = trainer.current_epoch + 1
        due = epoch % self.every == 0 or epoch == trainer.max_epochs
        if self.during == "fit" and trainer.is_last_batch and due:
            batches = Again(trainer.train_dataloader, trainer.current_epoch, self.first)
            self.looks.append(self._look(trainer, module, [batches], epoch) | {"epoch": torch.tensor(epoch)})

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.looks:
            self._save(trainer, {name: torch.stack([look[name] for look in self.looks]) for name in self.looks[0]})
            self.looks = []

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.during == "test":
            loaders = trainer.test_dataloaders
            loaders = loaders if isinstance(loaders, list) else [loaders]
            self._save(trainer, self._look(trainer, module, [Again(loader, 0, self.first) for loader in loaders], 0))

    @property
    def state_key(self) -> str:
        """Several of them may watch one loop, each with its own file."""
        return f"{type(self).__qualname__}/{self.file}"

    def state_dict(self) -> dict[str, Any]:
        return {"looks": self.looks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.looks = state["looks"]

    def _look(self, trainer: Trainer, module: LightningModule, loaders: list["Again"], step: int) -> dict[str, Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            found = self.measure(module.model, Chained(loaders), loss=module.objective.likelihood)
            found = {name: part.detach().cpu() for name, part in found.items()}
        stem = Path(self.file).stem
        short = {f"{stem}/{name}": part.flatten().tolist() for name, part in found.items() if part.numel() <= 8}
        flat = {f"{name}/{i}": value for name, values in short.items() for i, value in enumerate(values)}
        for logger in trainer.loggers:
            logger.log_metrics(flat, step=step)
        return found

    def _save(self, trainer: Trainer, found: dict[str, Tensor]) -> None:
        if trainer.is_global_zero:
            tensors = {name: part.contiguous() for name, part in found.items()}
            path = Path(trainer.default_root_dir) / self.file
            write_atomically(path, lambda temporary: save_file(tensors, temporary))


class Again:
    """The batches of a loader's epoch, the same ones at every pass; the loader itself stays where it is."""

    def __init__(self, loader: Any, epoch: int, first: int | None) -> None:
        if not isinstance(loader, Loader):
            raise ValueError(
                f"curvature is measured on batches of a plain loader, not of {type(loader).__name__}: "
                "choose during=test"
            )
        self.loader, self.epoch, self.first = loader, epoch, first

    def __iter__(self) -> Iterator[Any]:
        loader = copy.copy(self.loader)  # its position is its own, its data are shared
        loader.load_state_dict({"epoch": self.epoch, "repeat": 0, "batch": 0})
        return map(_unweighted, islice(loader, self.first))


def _unweighted(batch: Batch) -> tuple[Any, Tensor]:
    if batch.weights is not None:
        raise ValueError("measures count all samples alike, and these have weights; callbacks=[fisher] weights them")
    return batch.inputs, batch.targets


class Chained:
    """Several of them, one after the other."""

    def __init__(self, parts: list[Again]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self.parts)
