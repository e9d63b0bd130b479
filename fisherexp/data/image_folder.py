"""The user's own image files, one folder per class."""

from pathlib import Path
from typing import Any

import torch

from fisherexp.config.types import Count, Probability, Size
from fisherexp.data.datamodule import ImageData
from fisherexp.data.errors import DataError
from fisherexp.data.files import FileSet
from fisherexp.data.tensors import TensorSet
from fisherexp.seeds import generator

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")


class ImageFolder(ImageData):
    """<path>/train/<class>/… and <path>/test/<class>/…; or <path>/<class>/…, a fixed part of it the test.

    path: absolute, or relative to the working directory or the data folder.
    image_size: images become color images of this height and width (centered square part, resized).
    in_memory: decode everything once into tensors; false decodes batch by batch, for data larger than memory.
        Both give the same batches.
    test_share: where there is no test folder; the same images whatever the seed.
    workers: processes that decode when in_memory is false.
    Further options: see ImageData. Classes are the folder names in sorted order.
    """

    title = "image folder"
    test_folder = "test"
    mean = [0.485, 0.456, 0.406]  # of ImageNet
    std = [0.229, 0.224, 0.225]

    def __init__(
        self,
        path: str,
        image_size: Count = 64,
        in_memory: bool = True,
        test_share: Probability = 0.2,
        workers: Size = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.path, self.image_size = path, image_size
        self.in_memory, self.test_share, self.workers = in_memory, test_share, workers
        self.input_shape = (3, image_size, image_size)

    def read(self) -> tuple[TensorSet | FileSet, TensorSet | FileSet]:
        folder = self.locate(self.path)
        train, test = self._splits(folder)
        self.num_classes = len(self.class_names)
        for split, name in ((train, "training"), (test, "test")):
            if not len(split):
                raise DataError(f"{folder} leaves no {name} images; change data.test_share ({self.test_share})")
        return (train.in_memory(), test.in_memory()) if self.in_memory else (train, test)

    def _splits(self, folder: Path) -> tuple[FileSet, FileSet]:
        test = self.test_folder
        given = [name for name in ("train", test) if (folder / name).is_dir()]
        if len(given) == 1:
            missing = test if given == ["train"] else "train"
            raise DataError(f"{folder} has a folder '{given[0]}' but no folder '{missing}'")
        if given:
            self.class_names = folders(folder / "train")
            others = folders(folder / test)
            if self.class_names != others:
                differing = ", ".join(sorted(set(self.class_names) ^ set(others)))
                raise DataError(f"{folder}: the classes in 'train' and '{test}' differ by {differing}")
            return self._files(folder / "train"), self._files(folder / test)
        self.class_names = folders(folder)
        everything = self._files(folder)
        order = torch.randperm(len(everything), generator=generator("test"))
        held_out = round(self.test_share * len(everything))
        return everything.subset(order[held_out:].sort().values), everything.subset(order[:held_out].sort().values)

    def _files(self, folder: Path) -> FileSet:
        paths, labels = [], []
        for label, name in enumerate(self.class_names):
            found = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES)
            if not found:
                raise DataError(f"{folder / name} has no images ({', '.join(SUFFIXES)})")
            paths += [path.relative_to(folder).as_posix() for path in found]
            labels += [label] * len(found)
        return FileSet(folder, paths, torch.tensor(labels), self.image_size, self.workers)


def folders(folder: Path, of: str = "class") -> list[str]:
    """Names of the folders in a folder, sorted. `of` is for the message where there are none."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise DataError(f"{folder} has no folders; one folder of images per {of} is expected")
    return names
