"""What every method is: declarations, a lifecycle, an outcome. Methods of a model add Lightning's loops."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn

from fisherexp.data.batch import Batch
from fisherexp.methods.need import Need
from fisherexp.metrics.evaluation import Evaluation
from fisherexp.models.shares import cut, put_together
from fisherexp.objectives.classification import Classification
from fisherexp.objectives.objective import Objective
from fisherexp.scenarios.setting import Setting


class Method:
    """A subclass declares, as literals (they are read without importing the file):

    paper: authors, venue, arXiv number; for `list`, tables and docs.
    problems: the kinds of problem it is about: 'supervised', 'generative', 'environment', 'numerical'.
    scenarios: the kinds of scenario it accepts; empty for any.
    requires: what data and model must provide: 'class_labels', 'floats' (inputs that can be mixed), 'images',
        'features' (a head on top of them). 'class_labels or next_tokens' asks for one of the
        two. What is not required is accepted.
    package: an optional package it is written on, an extra of the same name.
    uses_model: whether the runner builds a network for it.
    study: it looks at a model and leaves every weight as it is; what it found is in its outcome and files.
    stream: names its random streams where its class does not: the class it had before it was renamed. Not inherited.
    search: option -> range in Hydra's syntax, for hydra/sweeper=optuna: {"alpha": "tag(log, interval(0.1, 10))"}.
    published: name of a data set, or <data set>/<scenario> -> metric -> (mean, standard deviation) or (mean,), as read
        in a source named beside them.

    outcome: plain containers for the run record; numbers under "metrics" stand beside those of the evaluation.
    headings, better: of such numbers, as in Evaluation.
    """

    paper: ClassVar[str] = ""
    problems: ClassVar[tuple[str, ...]] = ("supervised",)
    scenarios: ClassVar[tuple[str, ...]] = ()
    requires: ClassVar[tuple[str, ...]] = ()
    package: ClassVar[str | None] = None
    uses_model: ClassVar[bool] = True
    study: ClassVar[bool] = False
    published: ClassVar[dict[str, dict[str, tuple[float, ...]]]] = {}
    headings: ClassVar[dict[str, str]] = {}
    better: ClassVar[dict[str, str]] = {}

    outcome: dict[str, Any]

    @classmethod
    def stream_name(cls) -> str:
        """What its random streams are derived from, beside the seed."""
        return vars(cls).get("stream", cls.__name__)

    def leave_files(self, folder: Path) -> None:
        """Write what the method wants to leave in the run's folder (figures, say) once it is done."""


class ModelMethod(Method, LightningModule):
    """A network, a loop that changes it, and a test loop that evaluates it. As it stands, it changes nothing.

    A subclass declares besides:
    start: 'scratch' (new weights; the result of fit is an artefact others may ask for) or 'source'.
    fits_on: the part of the data whose loader `fit` goes through.
    looks_at: further parts of the data on which its outcome, not its weights, depends.
    needs: what else it is given before fit, see needs.py; found in `self.given` by name.
    of_source_data: it asks for the data that its source was trained on (`source.data`).
    adapts_at_test: gradients are needed in the test loop.
    steps_itself: it goes from batch to batch in a way of its own, without the trainer's optimizer step; gradients are
        then neither summed over batches nor clipped.
    weighs_samples: it gives every sample the weight it has in its batch, in losses and in curvature. Weighted data are
        refused otherwise. A subclass with another loss says anew whether it does.
    shards: its training is forward and backward passes and an elementwise optimizer, and looks at no weight itself:
        weights may be cut into shares (trainer=fsdp). Not inherited.
    raw_outputs: outputs approach one-hot targets themselves, by squared error; they are no logits, and a softmax of
        them is no probability: it is not evaluated by likelihood and calibration.
    """

    start: ClassVar[str] = "scratch"
    fits_on: ClassVar[str] = "train"
    looks_at: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[Need, ...]] = ()
    of_source_data: ClassVar[bool] = False
    adapts_at_test: ClassVar[bool] = False
    steps_itself: ClassVar[bool] = False
    weighs_samples: ClassVar[bool] = False
    shards: ClassVar[bool] = False
    raw_outputs: bool = False

    epochs: int = 1

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.automatic_optimization = not self.steps_itself
        self.outcome = {}
        self.given: dict[str, Any] = {}
        self.evaluation: Evaluation | None = None
        # That of the data; the runner puts it here before each loop.
        self.objective: Objective = Classification()
        # Set before fit. Asking the trainer would make it load the loader before it restores the loader's position.
        self.steps_per_epoch = 1
        self._whole: list[nn.Module] = []  # not a module of this one: the network whose shares are trained

    def forward(self, inputs: Any) -> Tensor:
        return self.model(inputs)

    def source_loaded(self) -> None:
        """The weights it starts with are in the model, and what it needs is in `given`. Fit comes next, and may go on
        from a saved state, which must find the modules that stand after this call. Random numbers drawn here are a
        stream of their own."""

    def batches(self, setting: Setting) -> Any:
        """The loader `fit` goes through: shuffled, augmented batches of `fits_on`."""
        # Batch statistics of a single image are none: leave such a last batch out, another image each epoch.
        samples = len(setting.parts[self.fits_on])
        single = samples > 1 and samples % setting.data.batch_size == 1
        return setting.loader(self.fits_on, shuffle=True, augment=True, drop_last=single)

    def configure_model(self) -> None:
        # Lightning's place for it, before the optimizer is made.
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            self._whole, self.model = [self.model], cut(self.model, self.device_mesh["data_parallel"])

    def teardown(self, stage: str) -> None:
        if self._whole:
            shared, self.model = self.model, self._whole.pop()
            put_together(shared, self.model)

    def evaluate(self, setting: Setting) -> None:
        """Be evaluated as `setting` says in the next test loop, which goes through its evaluated parts in order."""
        self.evaluation = setting.evaluation().to(self.device)
        self.evaluation.raw_outputs = self.raw_outputs

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.evaluation.update(dataloader_idx, self.model(batch.inputs), batch.targets)
        self.evaluation.ask(dataloader_idx, self.model, batch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # What dropout and sampling draw from; order and augmentation of the data have streams of their own.
        checkpoint["rng"] = torch.get_rng_state()
        checkpoint["means"] = {name: mean.state() for name, mean in self._means().items()}
        if self.device.type == "cuda":
            checkpoint["cuda_rng"] = torch.cuda.get_rng_state(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        torch.set_rng_state(checkpoint["rng"].cpu())
        for name, mean in self._means().items():
            mean.total, mean.count = checkpoint["means"][name]
        if "cuda_rng" in checkpoint:
            torch.cuda.set_rng_state(checkpoint["cuda_rng"].cpu())

    def _means(self) -> dict[str, "LossMean"]:
        """Of the epoch at hand, by attribute."""
        return {name: value for name, value in vars(self).items() if isinstance(value, LossMean)}


class LossMean:
    """Mean of a loss over an epoch, kept as one tensor on the device: no synchronization per step."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.count = 0

    def add(self, loss: Tensor, samples: int) -> None:
        loss = loss.detach() * samples
        self.total = loss if self.total is None else self.total + loss
        self.count += samples

    def state(self) -> tuple[Tensor | None, int]:
        """What has been added so far."""
        return self.total, self.count

    def take(self) -> float:
        """The mean, and start again. NaN where nothing was added."""
        mean = float("nan") if self.total is None else (self.total / self.count).item()
        self.__init__()
        return mean
