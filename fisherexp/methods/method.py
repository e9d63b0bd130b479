"""What every method is: a model, a Lightning loop that changes it, and a test loop that evaluates it."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric

from fisherexp.scenarios.setting import Setting


class Method(LightningModule):
    """As it stands: a model that is evaluated and never changed.

    A subclass declares, as literals (they are read without importing the file):
    paper: authors, venue, arXiv number; for `list`, tables and docs.
    scenarios: the kinds of scenario it accepts; empty for any.
    reads: what samples it works on: 'images', 'tokens'.
    start: 'scratch' (new weights; the result of fit is an artefact others may ask for) or 'source'.
    fits_on: the part of the data whose loader `fit` goes through.
    looks_at: further parts of the data on which its outcome, not its weights, depends.
    study: it looks at a model and leaves every weight as it is; what it found is in its outcome and files.
    needs: further artefacts, found in `self.given` by name when fit begins: 'fisher' (FisherDiagonal of all training
        data at the source, as the attribute `importance` says), 'kfac' (KFAC, as `factors` says), 'low_rank'
        (LowRankFisher, as `rows` says), 'initial' (the state that the training of the source began with), 'experts'
        (task -> state of a model trained from the source on that task alone, as the attribute `experts` says),
        'expert_fishers' and 'expert_grams' (task -> FisherDiagonal, or linear layer -> Gram matrix of its inputs, of
        that expert), 'other_seeds' (states of as many sources of other seeds as the attribute `others` says).
    adapts_at_test: gradients are needed in the test loop.
    search: option -> range in Hydra's syntax, for hydra/sweeper=optuna: {"alpha": "tag(log, interval(0.1, 10))"}.
    published: name of a data set, or <data set>/<scenario> -> metric -> (mean, standard deviation) or (mean,), as read
        in a source named beside them.
    """

    paper: ClassVar[str] = ""
    scenarios: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = ("images",)
    start: ClassVar[str] = "scratch"
    fits_on: ClassVar[str] = "train"
    looks_at: ClassVar[tuple[str, ...]] = ()
    study: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    adapts_at_test: ClassVar[bool] = False
    published: ClassVar[dict[str, dict[str, tuple[float, ...]]]] = {}

    epochs: int = 1

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.given: dict[str, Any] = {}
        self.evaluation: Metric | None = None
        # Set before fit. Asking the trainer would make it load the loader before it restores the loader's position.
        self.steps_per_epoch = 1
        # Plain containers a method wants in the record; numbers under "metrics" stand beside those of the evaluation.
        self.outcome: dict[str, Any] = {}

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def batches(self, setting: Setting) -> Any:
        """The loader `fit` goes through: shuffled, augmented batches of `fits_on`."""
        # Batch statistics of a single image are none: leave such a last batch out, another image each epoch.
        samples = len(setting.parts[self.fits_on])
        single = samples > 1 and samples % setting.data.batch_size == 1
        return setting.loader(self.fits_on, shuffle=True, augment=True, drop_last=single)

    def evaluate(self, setting: Setting) -> None:
        """Be evaluated as `setting` says in the next test loop, which goes through its evaluated parts in order."""
        self.evaluation = setting.evaluation().to(self.device)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        images, labels = batch
        self.evaluation.update(dataloader_idx, self.model(images), labels)
        if hasattr(self.evaluation, "ask"):
            self.evaluation.ask(dataloader_idx, self.model, images, labels)

    def leave_files(self, folder: Path) -> None:
        """Write what the method wants to leave in the run's folder (figures, say) once it is done."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # What dropout and sampling draw from; order and augmentation of the data have streams of their own.
        checkpoint["rng"] = torch.get_rng_state()
        if self.device.type == "cuda":
            checkpoint["cuda_rng"] = torch.cuda.get_rng_state(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        torch.set_rng_state(checkpoint["rng"].cpu())
        if "cuda_rng" in checkpoint:
            torch.cuda.set_rng_state(checkpoint["cuda_rng"].cpu())


class LossMean:
    """Mean of a loss over an epoch, kept as one tensor on the device: no synchronization per step."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0

    def add(self, loss: Tensor, samples: int) -> None:
        loss = loss.detach() * samples
        self.total = loss if self.total is None else self.total + loss
        self.count += samples

    def take(self) -> float:
        """The mean, and start again. NaN where nothing was added."""
        mean = float("nan") if self.total is None else (self.total / self.count).item()
        self.__init__()
        return mean
