"""The face of every data set: options, splits, checksum, loaders."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule

from fisherexp.config.locations import data_folder, located
from fisherexp.config.types import Count, Probability, Size
from fisherexp.data.errors import DataError
from fisherexp.data.loader import Loader
from fisherexp.data.remarks import Remarks
from fisherexp.data.store import Store
from fisherexp.data.tensors import TensorSet
from fisherexp.objectives.classification import Classification
from fisherexp.objectives.objective import Objective
from fisherexp.seeds import generator


class LabeledData(LightningDataModule):
    """Samples with labels, in memory or in files. Subclasses declare the class attributes and implement `read`.

    batch_size: of shuffled loaders, per process. eval_batch_size: of loaders that go through a set in order.
    root: folder with data files; by default the environment variable FISHEREXP_DATA, then ~/.cache/fisherexp.
    validation: share of the training set put aside, by a seeded shuffle.
    train_size: number of the remaining training samples to keep, by a seeded shuffle; all by default.
    seed: of these two draws, and of loaders that are given no other.

    After `load`: `train`, `test` and `validation` (None if the share is 0). Sets described by the user's own
    files fill in num_classes, input_shape, class_names, mean and std then, too; `remarks` say for the run's record
    what was converted in reading and what was not read.

    provides: what models, methods and scenarios may require of the samples: 'images', 'tokens' (characters or words of
        the data's own), 'text' (tokens of the model's), 'next_tokens' (of either, to be predicted one by one),
        'floats' (inputs that can be mixed), 'class_labels', 'domains', 'facts' (see FactData), 'corpora' (see Muse).
    model_task: which task of a pretrained transformer they are for: 'classification' or 'causal_lm'.
    problems: the kinds of problem that can be made of it.
    tasks: names of the tasks that scenarios make of text; images have those of data/task_transforms.py.
    marks: of texts that a model is to write by itself, the token that ends one ('end') and one that does not count
        ('silent'); None of other data.
    objective: what a model of these data is trained for and evaluated by.
    paths: options that name files or folders of the user's; their content is part of a run's name (see
        runs/identity.py). files: further ones that are read from the data folder under a fixed name.
    """

    title: str = ""
    provides: tuple[str, ...] = ("images", "floats", "class_labels")
    model_task: str = "classification"
    problems: tuple[str, ...] = ("supervised", "generative")
    tasks: tuple[str, ...] = ()
    marks: dict[str, int] | None = None
    end: int | None = None  # of texts that a model is to write, the token that ends one
    refusals: list[str] | None = None  # answers that say nothing, where samples are words of the data's own
    objective: Objective = Classification()
    paths: tuple[str, ...] = ("path",)
    files: tuple[str, ...] = ()
    num_classes: int | None = None
    input_shape: tuple[int, ...] | None = None
    input_dtype: torch.dtype = torch.uint8
    class_names: list[str] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    augment: str = "none"
    mirrors: bool = True  # a mirrored image means the same; of a digit, it is another one or none
    published_corruptions: str | None = None  # the folder name under which corrupted copies of its test set are given
    one_logit: bool = False  # of two classes: published with a single output, see Classifier
    store: Store | None = None  # where what is costly to read may be kept; the problem gives it

    def __init__(
        self,
        batch_size: Count = 128,
        eval_batch_size: Count = 512,
        root: str | None = None,
        validation: Probability = 0.0,
        train_size: Count | None = None,
        seed: Size = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self.root = data_folder(root)
        self.validation_share, self.train_size = validation, train_size
        self.train: TensorSet | None = None
        self.test: TensorSet | None = None
        self.validation: TensorSet | None = None
        self._checksum: str | None = None
        self.remarks: Remarks = {}

    @property
    def altered(self) -> bool:
        """Whether options leave out or change samples: figures published for the data set are then of other data."""
        return self.train_size is not None

    @abstractmethod
    def read(self) -> tuple[TensorSet, TensorSet]:
        """(training set, test set). Raises DataError, in one line, for whatever the user can put right."""

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens say; only where samples are tokens."""
        raise NotImplementedError

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without marks; only where samples are tokens. Raises DataError for what has none."""
        raise NotImplementedError

    def locate(self, path: str) -> Path:
        """A file or folder given by the user: absolute, in the working directory, or in the data folder."""
        found = located(path, str(self.root))
        if found is None:
            given = Path(path).expanduser()
            places = f"at {given}" if given.is_absolute() else f"in {Path.cwd()} or {self.root}"
            raise DataError(f"{self.title}: there is no '{path}' {places}; set data.path")
        return found

    def chosen(self, train: TensorSet, test: TensorSet) -> tuple[TensorSet, TensorSet]:
        """What is used of the samples that were read; here, all."""
        return train, test

    @property
    def num_outputs(self) -> int:
        """How many numbers a network answers with."""
        return self.num_classes

    @property
    def architecture_options(self) -> dict[str, Any]:
        """What an architecture is told of its inputs, by keyword."""
        return {"input_shape": self.input_shape}

    def blank(self, count: int) -> Any:
        """Inputs of `count` samples, of their shape and without content."""
        return torch.zeros(count, *self.input_shape, dtype=self.input_dtype)

    def load(self) -> "LabeledData":
        """Read the data, once; later calls do nothing. Returns self."""
        if self.train is None:
            train, self.test = self.chosen(*self.read())
            if self.validation_share:
                order = torch.randperm(len(train), generator=generator("validation", self.seed))
                held_out = round(self.validation_share * len(train))
                self.validation = train.subset(order[:held_out].sort().values)
                train = train.subset(order[held_out:].sort().values)
                if not len(train):
                    raise DataError(f"data.validation={self.validation_share} leaves no training samples")
            if self.train_size is not None:
                if self.train_size > len(train):
                    raise DataError(f"data.train_size={self.train_size}: there are only {len(train)} training samples")
                order = torch.randperm(len(train), generator=generator("train_size", self.seed))
                train = train.subset(order[: self.train_size].sort().values)
            self.train = train
        return self

    def checksum(self) -> str:
        """Hash of the content of all splits: 16 hexadecimal digits."""
        if self._checksum is None:
            self.load()
            digest = hashlib.blake2b(digest_size=8)
            for split in (self.train, self.validation, self.test):
                if split is not None:
                    split.hash_into(digest)
            self._checksum = digest.hexdigest()
        return self._checksum

    def loader(
        self,
        image_set: TensorSet,
        *,
        shuffle: bool,
        batch_size: int | None = None,
        augment: bool = False,
        seed: int | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str | None = None,
    ) -> Loader:
        """Batches of `image_set` with this data set's batch sizes and seed by default. See Loader."""
        return image_set.loader(
            batch_size or (self.batch_size if shuffle else self.eval_batch_size),
            shuffle=shuffle,
            augment=self.augment if augment else None,
            seed=self.seed if seed is None else seed,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
            device=device,
        )

    def setup(self, stage: str | None = None) -> None:
        self.load()

    def train_dataloader(self) -> Loader:
        # Overfitting a few batches means the same ones in every epoch.
        same_each_epoch = self.trainer is not None and self.trainer.overfit_batches > 0
        return self.loader(
            self.train,
            shuffle=not same_each_epoch,
            batch_size=self.batch_size,
            augment=not same_each_epoch,
            **self._place(),
        )

    def val_dataloader(self) -> Loader | list:
        return [] if self.validation is None else self.loader(self.validation, shuffle=False, **self._place())

    def test_dataloader(self) -> Loader:
        return self.loader(self.test, shuffle=False, **self._place())

    def _place(self) -> dict:
        if self.trainer is None:
            return {}
        return {
            "rank": self.trainer.global_rank,
            "world_size": self.trainer.world_size,
            "device": self.trainer.strategy.root_device,
        }
