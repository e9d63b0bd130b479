"""The user's own image files, one folder per class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fisherexp.config.types import Count, Probability, Size
from fisherexp.data.errors import DataError
from fisherexp.data.files import FileSet
from fisherexp.data.folder_reader import FolderReader
from fisherexp.data.folders import TEST, TRAINING, VALIDATION, classes, folders, images_below, split_named
from fisherexp.data.image_data import ImageData
from fisherexp.data.remarks import say
from fisherexp.data.tensors import TensorSet
from fisherexp.seeds import generator


class ImageFolder(ImageData):
    """<path>/train/<class>/… and <path>/test/<class>/…; or <path>/<class>/…, a fixed part of it the test.

    path: absolute, or relative to the working directory or the data folder.
    image_size: images become color images of this height and width (centered square part, resized).
    in_memory: decode everything once into tensors; false decodes batch by batch, for data larger than memory.
        Both give the same batches.
    test_share: where there is no test folder; the same images whatever the seed.
    workers: processes that decode when in_memory is false.
    intensity_range: [black, white] of images of one channel with more than 8 bits; by default [0, 65535] of whole
        numbers and [0, 1] of floats, and what does not look so is refused.
    exif_orientation: turn images as their camera noted.
    Further options: see ImageData. Classes are the folder names in sorted order. Training, TRAIN, testing and so on are
    the same folders; without one for testing, val or validation serves.

    test_folders: names that the folder of test images may have, best ones first.
    counted: look into every file's header, to say what is converted.
    """

    title = "image folder"
    test_folders: tuple[tuple[str, ...], ...] = (TEST, VALIDATION)
    counted = True
    mean = [0.485, 0.456, 0.406]  # of ImageNet
    std = [0.229, 0.224, 0.225]

    def __init__(
        self,
        path: str,
        image_size: Count = 64,
        in_memory: bool = True,
        test_share: Probability = 0.2,
        workers: Size = 0,
        intensity_range: list[float] | None = None,
        exif_orientation: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.path, self.image_size = path, image_size
        self.in_memory, self.test_share, self.workers = in_memory, test_share, workers
        self.intensity_range, self.exif_orientation = intensity_range, exif_orientation
        self.input_shape = (3, image_size, image_size)

    def read(self) -> tuple[TensorSet | FileSet, TensorSet | FileSet]:
        folder = self.locate(self.path)
        reader = FolderReader(self.image_size, self.workers, self.intensity_range, self.exif_orientation)
        train, test = self._splits(folder, reader)
        self.num_classes = len(self.class_names)
        if self.num_classes < 2:
            only = self.class_names[0]
            raise DataError(f"{folder} has the one class '{only}'; are the classes in there, and data.path is {only}?")
        for split, name in ((train, "training"), (test, "test")):
            if not len(split):
                raise DataError(f"{folder} leaves no {name} images; change data.test_share ({self.test_share})")
        self.remarks = reader.remarks(*((train, test) if self.counted else ()))
        say(folder, self.remarks)
        return (train.in_memory(), test.in_memory()) if self.in_memory else (train, test)

    def _splits(self, folder: Path, reader: FolderReader) -> tuple[FileSet, FileSet]:
        train = split_named(folder, TRAINING)
        tests = [name for known in self.test_folders if (name := split_named(folder, known))]
        if not train and not tests:
            return self._drawn(folder, reader)
        if not train or not tests:
            given, missing = (train, self.test_folders[0][0]) if train else (tests[0], TRAINING[0])
            raise DataError(f"{folder} has a folder '{given}' but no folder '{missing}'")
        test = tests[0]
        for name in folders(folder):
            if name not in (train, test):
                reader.unread[f"images of the folder {name}"] += len(images_below(folder / name, reader.unread))
        self.class_names = classes(folder / train)
        self._check_classes(folder, train, test)
        return tuple(reader.files(folder / name, folder / name, self.class_names) for name in (train, test))

    def _drawn(self, folder: Path, reader: FolderReader) -> tuple[FileSet, FileSet]:
        self.class_names = classes(folder)
        everything = reader.files(folder, folder, self.class_names)
        order = torch.randperm(len(everything), generator=generator("test"))
        held_out = round(self.test_share * len(everything))
        return everything.subset(order[held_out:].sort().values), everything.subset(order[:held_out].sort().values)

    def _check_classes(self, folder: Path, train: str, test: str) -> None:
        others: Sequence[str] = classes(folder / test)
        if self.class_names != others:
            differing = ", ".join(sorted(set(self.class_names) ^ set(others)))
            raise DataError(f"{folder}: the classes in '{train}' and '{test}' differ by {differing}")
