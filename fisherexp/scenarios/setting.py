"""What a scenario makes of a data set: the named parts a method may use, and how the outcome is evaluated."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from fisherexp.data.datamodule import LabeledData
from fisherexp.data.store import Store  # noqa: F401 - scenarios import it from here
from fisherexp.metrics.evaluation import Evaluation
from fisherexp.seeds import derive


@dataclass(frozen=True)
class Segment:
    """What a test-time method does at one of the evaluated parts, in their order: a stretch of its stream.

    adapt: False for a frozen evaluation, which leaves the method's state as it is.
    reset: back to the source model before the segment, before each of its batches, or never.
    """

    adapt: bool = True
    reset: Literal["never", "before", "each_batch"] = "never"


@dataclass
class Setting:
    """Parts of a data set by name, and how a model is evaluated on some of them.

    parts: 'train' and whatever the scenario cuts from it ('retain', 'forget'…), 'test' and its cuts.
    evaluated: the parts a model is evaluated on, in the order in which `evaluation()` numbers them; a stream may come
        back to the same part.
    segments: one for each evaluated part where they are a stream that a method may adapt on; else empty.
    stream_batch_size: of the batches in which evaluated parts come; by default the data set's for evaluation.
    window: in a stream of single images, how many of the last ones a method may keep to predict the newest; 0: none.
    altered: options of the scenario leave out or change samples, so that published figures are of another protocol.
    about: what a record should say of the data made here (plain containers).
    seed: of the order and augmentation of shuffled batches.
    forgotten: mask (n_train,) of the training samples that are to be forgotten, where that is the scenario.
    requests: settings that a method is to work through one by one, each from where the last one ended; empty where
        it works on this one.
    tasks: name -> setting of each of several tasks that this one is made of, with its own train, validation and test.
    test_forgotten: mask (n_test,) of the test samples that are like them (of the same class, say); none if None.
    evaluation: makes a fresh metric; its `predictions` are kept for comparisons with other models.
    same_batches: every epoch sees the same ones, unshuffled and without augmentation (to overfit them).
    device, rank, world_size: where batches are to lie and which share of them this process gets.
    """

    data: LabeledData
    parts: dict[str, Any]
    evaluated: tuple[str, ...]
    evaluation: Callable[[], Evaluation]
    seed: int = 0
    same_batches: bool = False
    forgotten: torch.Tensor | None = None
    test_forgotten: torch.Tensor | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    segments: tuple[Segment, ...] = ()
    requests: tuple["Setting", ...] = ()
    tasks: dict[str, "Setting"] = field(default_factory=dict)
    stream_batch_size: int | None = None
    window: int = 0
    altered: bool = False
    about: dict[str, Any] = field(default_factory=dict)
    rank: int = 0
    world_size: int = 1

    def loader(self, part: str, *, shuffle: bool = False, augment: bool = False, **options: Any) -> Any:
        """Batches of a part; options as `LabeledData.loader` takes them."""
        return self.loader_of(self.parts[part], shuffle=shuffle, augment=augment, **options)

    def loader_of(self, samples: Any, **options: Any) -> Any:
        """Batches of any set of samples, on this setting's device."""
        if self.same_batches:
            size = options.get("batch_size") or self.data.batch_size
            options |= {"shuffle": False, "augment": False, "batch_size": size}
        place = {"device": self.device, "rank": self.rank, "world_size": self.world_size}
        return self.data.loader(samples, **{"seed": derive("batches", self.seed)} | place | options)

    def checksum(self, part: str) -> str:
        """Hash of the samples of a part, in their order."""
        digest = hashlib.blake2b(digest_size=8)
        self.parts[part].hash_into(digest)
        return digest.hexdigest()

    def refuse_weights(self, title: str) -> None:
        """Raises ValueError where samples have weights, for `title`, which would count all alike."""
        weighted = [name for name, samples in self.parts.items() if samples.weights is not None]
        if weighted:
            raise ValueError(
                f"the samples of '{weighted[0]}' have weights, and {title} would count all alike; "
                "give it data without weights, or take method=erm, which weights its loss"
            )
