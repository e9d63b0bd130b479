"""Which diagonal Fisher a method means by "importance", and the Lightning loop that accumulates it."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count
from fisherexp.curvature import DiagonalAccumulator, FisherDiagonal
from fisherexp.data.batch import Batch
from fisherexp.data.composite import Chained
from fisherexp.methods.curvature import Curvature, reduce_over_ranks
from fisherexp.methods.method import ModelMethod
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import derive

# Samples of batch means that go through the model at once. Small batches one by one would keep no processor busy.
TOGETHER = 512


@dataclass(frozen=True)
class Importance(Curvature):
    """A named estimator of the diagonal Fisher (see fisherexp.curvature), and the batches it is given.

    batch_size: with gradients='batch_mean' a part of the estimator, otherwise only a matter of speed and memory.
    order: of the training set, which matters to 'batch_mean' alone. 'by_class' is that of the official SSD scripts
        (retained samples sorted by class, then the forgotten ones); 'forget_apart' the same, but no batch holds both
        retained and forgotten samples; 'as_is' that of the data set. Samples without classes count as one class.
    """

    kind: ClassVar[str] = "fisher"
    result: ClassVar[type] = FisherDiagonal
    counts_with: ClassVar[dict[str, dict[str, Any]]] = {
        "batch_size": {"gradients": "batch_mean", "labels": "empirical"},
        "order": {"gradients": "batch_mean", "labels": "empirical", "batch_size": 16},
    }

    labels: Literal["empirical", "pseudo", "sampled", "expected"] = "empirical"
    gradients: Literal["per_sample", "batch_mean"] = "per_sample"
    batch_size: Count = 64
    order: Literal["as_is", "by_class", "forget_apart"] = "as_is"

    def key(self) -> dict[str, Any]:
        found: dict[str, Any] = {"labels": self.labels, "gradients": self.gradients}
        if self.gradients == "batch_mean":
            found |= {"batch_size": self.batch_size, "order": self.order}
        return found

    @property
    def replicated(self) -> bool:
        """Of batch means: shares would be other batches."""
        return self.gradients == "batch_mean"

    @property
    def batches_per_update(self) -> int:
        return max(1, TOGETHER // self.batch_size) if self.gradients == "batch_mean" else 1

    def batches(self, setting: Setting, part: str, batches_per_update: int = 1) -> Any:
        """Batches of a part, without augmentation, in this estimator's order; `batches_per_update` of them as one."""
        options = {"shuffle": False, "batch_size": batches_per_update * self.batch_size}
        if self.gradients == "per_sample":
            return setting.loader(part, **options)
        # Ranks would cut other batches: each goes through all of them.
        setting = dataclasses.replace(setting, rank=0, world_size=1)
        if self.order == "as_is":
            return setting.loader(part, **options)
        if part != "train" or setting.forgotten is None:
            return setting.loader_of(_sorted(setting.parts[part]), **options)
        if self.order == "forget_apart":
            apart = (_sorted(setting.parts[name]) for name in ("retain", "forget"))
            return Chained(*(setting.loader_of(images, **options) for images in apart))
        samples, forgotten = setting.parts["train"], setting.forgotten
        order = _class_order(samples)
        order = torch.cat([order[~forgotten[order]], order[forgotten[order]]])
        return setting.loader_of(samples.subset(order), **options)

    def accumulator(self, model: nn.Module, seed: int, likelihood: str = "cross_entropy") -> DiagonalAccumulator:
        group = self.batch_size if self.gradients == "batch_mean" else None
        estimator = {"labels": self.labels, "gradients": self.gradients, "group": group, "loss": likelihood}
        return DiagonalAccumulator(model, seed=seed, **estimator)


def _class_order(samples: Any) -> Tensor:
    """Indices (N,) of the samples class by class; of samples without classes, as they come."""
    if samples.targets.dim() > 1 or samples.targets.is_floating_point():
        return torch.arange(len(samples))
    return torch.argsort(samples.targets.cpu(), stable=True)


def _sorted(samples: Any) -> Any:
    return samples.subset(_class_order(samples))


class FisherPass(ModelMethod):
    """One epoch that changes nothing and leaves the Fisher of a part of the data in `self.fisher`: the diagonal, or
    what else `importance` means."""

    start = "source"
    steps_itself = True
    weighs_samples = True  # or its accumulator refuses them

    def __init__(self, model: nn.Module, importance: Curvature) -> None:
        super().__init__(model)
        self.importance = importance
        # An estimator may have dropped the statistics of BatchNorm when its state was saved; here they still are.
        self.strict_loading = False
        self.label_seed, self.likelihood = 0, "cross_entropy"
        self.accumulator: Any = None
        self.fisher: Any = None
        self._restored: dict[str, Any] | None = None
        self._drawn_from: Tensor | None = None  # state of what sampled labels are drawn from

    def batches(self, setting: Setting) -> Any:
        self.label_seed = derive("labels", setting.seed, self.fits_on)
        self.likelihood = setting.data.objective.likelihood
        # At least two updates, of however few samples: a pass that is stopped then has a state to go on from.
        half = len(setting.parts[self.fits_on]) // (2 * self.importance.batch_size)
        # A sequence is as much work, and memory, as its tokens.
        tokens = setting.data.input_shape[0] if self.likelihood == "sequence" else 1
        together = min(self.importance.batches_per_update // tokens, half)
        return self.importance.batches(setting, self.fits_on, max(1, together))

    def on_train_start(self) -> None:
        self.accumulator = self.importance.accumulator(self.model, self.label_seed, self.likelihood)
        if self._restored is not None:
            self.accumulator.load_sums(self._restored)
        if self._drawn_from is not None:
            self.accumulator.generator.set_state(self._drawn_from.cpu())

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.accumulator.update(batch.inputs, batch.targets, batch.weights)

    def on_train_end(self) -> None:
        if not self.importance.replicated:
            reduce_over_ranks(self.accumulator)
        self.fisher = self.accumulator.result()

    def configure_optimizers(self) -> None:
        return None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["fisher"] = {name: total.clone() for name, total in self.accumulator.sums().items()}
        if self.accumulator.generator is not None:
            checkpoint["labels"] = self.accumulator.generator.get_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._restored, self._drawn_from = checkpoint["fisher"], checkpoint.get("labels")
