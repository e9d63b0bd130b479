"""Labeled images: augmentation, a choice of classes, classes merged into larger ones."""

import dataclasses
from typing import Literal

import torch

from fisherexp.config.types import AtLeastOne, Count, Probability, Size
from fisherexp.data.datamodule import LabeledData
from fisherexp.data.errors import DataError
from fisherexp.data.tensors import TensorSet


class ImageData(LabeledData):
    """Labeled images.

    augment: what loaders asked for augmentation do; see augment.py.
    download: fetch files that are missing, where the set can be downloaded.
    classes: keep samples of these classes only, which are numbered 0, 1, … in this order; None for all.
    superclasses: lists of classes that become one class each; every class belongs to one of them.
    Further options: see LabeledData.

    Where classes were merged, `fine_labels` has those from before, by split: int64 (N,), in the order of `train` and
    `test`.
    """

    input_shape: tuple[int, int, int] | None = None

    def __init__(
        self,
        batch_size: Count = 128,
        eval_batch_size: Count = 512,
        augment: Literal["none", "crop", "crop_flip", "crop_flip_rotate"] = "none",
        root: str | None = None,
        download: bool = False,
        validation: Probability = 0.0,
        train_size: Count | None = None,
        seed: Size = 0,
        classes: AtLeastOne[Size] | None = None,
        superclasses: AtLeastOne[AtLeastOne[Size]] | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, root, validation, train_size, seed)
        self.augment, self.download = augment, download
        self.classes, self.superclasses = classes, superclasses
        self.fine_labels: dict[str, torch.Tensor] = {}

    @property
    def altered(self) -> bool:
        return super().altered or self.classes is not None

    def chosen(self, train: TensorSet, test: TensorSet) -> tuple[TensorSet, TensorSet]:
        """Those of `classes`. Raises DataError for a class that there is not or that is named twice, and where classes
        are merged as well."""
        if self.classes is None:
            return train, test
        if self.superclasses is not None:
            raise DataError(f"{self.title}: data.classes chooses among classes that data.superclasses merges; set one")
        if len(set(self.classes)) < len(self.classes) or not set(self.classes) <= set(range(self.num_classes)):
            wanted = f"some of 0…{self.num_classes - 1}, each once"
            raise DataError(f"{self.title}: data.classes must hold {wanted}, got {self.classes}")
        number = torch.full((self.num_classes,), -1)
        number[self.classes] = torch.arange(len(self.classes))
        kept = [split.subset((number[split.targets] >= 0).nonzero().flatten()) for split in (train, test)]
        if self.class_names:
            self.class_names = [self.class_names[label] for label in self.classes]
        self.num_classes = len(self.classes)
        train, test = (dataclasses.replace(split, targets=number[split.targets]) for split in kept)
        return train, test

    def load(self) -> "ImageData":
        """As in LabeledData, with classes merged where `superclasses` says so."""
        if self.train is None:
            super().load()
            if self.superclasses is not None:
                self._merge(self.superclasses)
        return self

    def _merge(self, superclasses: list[list[int]]) -> None:
        """Let every label be the number of the list it is in. Raises DataError unless each is in one list."""
        merged = torch.full((self.num_classes,), -1)
        given = [label for members in superclasses for label in members]
        if sorted(given) != list(range(self.num_classes)):
            wanted = f"each class 0…{self.num_classes - 1} once"
            raise DataError(f"{self.title}: data.superclasses must hold {wanted}, got {superclasses}")
        for number, members in enumerate(superclasses):
            merged[members] = number
        self.fine_labels = {"train": self.train.targets, "test": self.test.targets}
        for split in ("train", "validation", "test"):
            if (images := getattr(self, split)) is not None:
                setattr(self, split, dataclasses.replace(images, targets=merged[images.targets]))
        if self.class_names:
            self.class_names = ["+".join(self.class_names[label] for label in members) for members in superclasses]
        self.num_classes = len(superclasses)
