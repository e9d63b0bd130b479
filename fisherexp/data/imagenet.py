"""ImageNet (ILSVRC 2012), from the folders that everyone unpacks it into."""

from pathlib import Path
from typing import Any

import torch

from fisherexp.data.errors import DataError
from fisherexp.data.files import FileSet
from fisherexp.data.folder_reader import FolderReader
from fisherexp.data.folders import VALIDATION
from fisherexp.data.image_folder import ImageFolder


class ImageNet(ImageFolder):
    """<path>/train/<class>/… and <path>/val/<class>/…, 1000 classes; the validation images serve as test images.

    test_list: a text file of the test images to use, <class>/<file> one a line, in its order; by default all.
        RobustBench (Croce et al. 2021, arXiv 2010.09670) evaluates on the 5,000 of its imagenet_test_image_ids.txt.
    exif_orientation: published accuracies are of images as they are stored, which is the default here.

    Corrupted copies of these are taken from the folder ImageNet-C in the data folder where it is there. Images become
    their centered square, resized (the usual evaluation cuts a border of a sixteenth off; ImageNet-C comes cut). The
    headers of its 1.3 million files are not looked through. Further options: see ImageFolder.
    """

    title = "ImageNet"
    name = "imagenet"
    test_folders = (VALIDATION,)
    counted = False
    paths = ("path", "test_list")
    published_corruptions = "ImageNet-C"

    def __init__(self, path: str, test_list: str | None = None, exif_orientation: bool = False, **options: Any) -> None:
        super().__init__(path, exif_orientation=exif_orientation, **options)
        self.test_list = test_list

    @property
    def altered(self) -> bool:
        return super().altered or self.test_list is not None

    def _splits(self, folder: Path, reader: FolderReader) -> tuple[FileSet, FileSet]:
        train, test = super()._splits(folder, reader)
        return train, test if self.test_list is None else _listed(test, self.locate(self.test_list))


def _listed(test: FileSet, file: Path) -> FileSet:
    """The images that a file names. Raises DataError for one that is not there, is named twice, or where none is."""
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.test_list: {file} is no readable list: {error}") from None
    places = {path: place for place, path in enumerate(test.paths)}
    missing = [name for name in names if name not in places]
    if missing:
        raise DataError(f"{test.folder} has no {missing[0]}, which {file} lists ({len(missing)} are missing)")
    if not names or len(set(names)) < len(names):
        raise DataError(f"data.test_list: {file} names {'an image twice' if names else 'no image'}")
    return test.subset(torch.tensor([places[name] for name in names]))
