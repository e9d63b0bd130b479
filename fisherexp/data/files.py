"""Images that stay on disk and are decoded batch by batch, behind the same face as tensors in memory."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader

from fisherexp.content import contents
from fisherexp.data.errors import DataError
from fisherexp.data.loader import Batch, Loader
from fisherexp.data.tensors import ImageSet


@dataclass(frozen=True, eq=False)
class FileSet:
    """Image files with labels; the counterpart of ImageSet.

    folder: the paths are relative to it. paths: one per image. labels: int64 (N,).
    image_size: images become (3, image_size, image_size). workers: processes that decode; 0 is this one.
    """

    folder: Path
    paths: list[str]
    labels: Tensor
    image_size: int
    workers: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return decode(self.folder / self.paths[index], self.image_size), self.labels[index]

    def subset(self, indices: Sequence[int] | Tensor) -> "FileSet":
        """The items at `indices`, in that order."""
        indices = torch.as_tensor(indices, dtype=torch.int64)
        paths = [self.paths[i] for i in indices.tolist()]
        return FileSet(self.folder, paths, self.labels[indices], self.image_size, self.workers)

    def loader(self, batch_size: int, **options) -> "FileLoader":
        """Batches of this set; options as for FileLoader."""
        return FileLoader(self, batch_size, **options)

    def in_memory(self) -> ImageSet:
        """All images decoded."""
        images = torch.empty(len(self), 3, self.image_size, self.image_size, dtype=torch.uint8)

        def decode_into(index: int) -> None:
            images[index] = decode(self.folder / self.paths[index], self.image_size)

        with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
            for _ in pool.map(decode_into, range(len(self))):
                pass
        return ImageSet(images, self.labels)

    def hash_into(self, digest) -> None:
        """Feed names, hashes of the files' content, labels and size to a hashlib object. A file that has not changed is
        not read again."""
        hashes = contents([self.folder / path for path in self.paths])
        for path, found, label in zip(self.paths, hashes, self.labels.tolist(), strict=True):
            digest.update(f"{path}:{found}:{label}:{self.image_size}\n".encode())


class FileLoader(Loader):
    """Batches of a FileSet, decoded by a torch DataLoader. See Loader for the options.

    Order, augmentation and resuming are those of a TensorLoader over the same images.
    """

    def __init__(self, files: FileSet, batch_size: int, *, device: torch.device | str | None = None, **options) -> None:
        super().__init__(len(files), batch_size, **options)
        self.files, self.device = files, device

    @property
    def image_size(self) -> tuple[int, int]:
        return self.files.image_size, self.files.image_size

    def fetch(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        decoded = iter(
            DataLoader(
                self.files,
                batch_sampler=[batch.tolist() for batch in batches],
                num_workers=self.files.workers,
                generator=torch.Generator(),  # not the global one
            )
        )
        try:
            for images, labels in decoded:
                yield images.to(self.device), labels.to(self.device)
        except DataError as error:  # a worker's traceback comes as text; its last line is the message
            raise DataError(str(error).strip().rpartition("DataError: ")[2]) from None
        finally:  # left to the garbage collector, workers outlive an epoch that is broken off
            if self.files.workers:
                decoded._shutdown_workers()


def decode(path: Path, size: int) -> Tensor:
    """An image file as uint8 (3, size, size): centered square part, resized with bilinear filtering.

    Raises DataError naming the file if it cannot be read.
    """
    try:
        with Image.open(path) as image:
            fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        reason = "no image format is recognized" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{path} cannot be decoded: {reason}") from None
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1).contiguous()
