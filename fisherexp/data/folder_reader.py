"""Sets of image files read from folders of classes, with an account of what is converted and what is not read."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from fisherexp.data.decoding import Decoding
from fisherexp.data.errors import DataError
from fisherexp.data.files import FileSet
from fisherexp.data.folders import SUFFIXES, beside, images_below


class FolderReader:
    """image_size, workers: of the sets, see FileSet. intensity_range, exif_orientation: see Decoding.

    unread: how many files of which kind were met and left out. Raises DataError for a range that is none.
    """

    def __init__(
        self, image_size: int, workers: int, intensity_range: Sequence[float] | None, exif_orientation: bool
    ) -> None:
        if intensity_range is not None:
            ends = [*intensity_range]
            if len(ends) != 2 or not all(map(math.isfinite, ends)) or not ends[0] < ends[1]:
                raise DataError(f"data.intensity_range={ends}: two numbers, black and white, e.g. [0, 4095]")
            intensity_range = tuple(ends)
        self.image_size, self.workers = image_size, workers
        self.decoding = Decoding(intensity_range, exif_orientation)
        self.unread: Counter[str] = Counter()

    def files(self, root: Path, folder: Path, class_names: Sequence[str], some: bool = False) -> FileSet:
        """The images of `folder`/<class>, class by class, as paths from `root`. Raises DataError for a class without
        images; with `some`, only where none has any."""
        paths: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(class_names):
            found = images_below(folder / name, self.unread) if (folder / name).is_dir() else []
            if not found and not some:
                raise DataError(f"{folder / name} has no images ({', '.join(SUFFIXES)})")
            paths += [path.relative_to(root).as_posix() for path in found]
            labels += [label] * len(found)
        if not paths:
            raise DataError(f"{folder} has no images ({', '.join(SUFFIXES)})")
        beside(folder, self.unread)
        targets = torch.tensor(labels)
        return FileSet(root, paths, targets, self.image_size, self.workers, decoding=self.decoding)

    def remarks(self, *sets: FileSet) -> dict[str, dict[str, int]]:
        """How many files are converted in which way and not read for which reason; what did not happen is left out."""
        converted = sum((files.conversions() for files in sets), Counter())
        return {name: dict(found) for name, found in (("converted", converted), ("not read", self.unread)) if found}
