"""Images that stay on disk and are decoded batch by batch, behind the same face as tensors in memory."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fisherexp.content import contents
from fisherexp.data.batch import Batch, spread
from fisherexp.data.decoding import USUAL, Decoding, conversions, decode
from fisherexp.data.errors import DataError
from fisherexp.data.loader import Loader
from fisherexp.data.tensors import TensorSet


@dataclass(frozen=True, eq=False)
class FileSet:
    """Image files with their classes; the counterpart of TensorSet.

    folder: the paths are relative to it. paths: one per image. targets: int64 (N,). tags: see Batch.
    image_size: images become (3, image_size, image_size). workers: processes that decode; 0 is this one.
    decoding: see there.
    """

    folder: Path
    paths: list[str]
    targets: Tensor
    image_size: int
    workers: int = 0
    tags: Mapping[str, Tensor] = field(default_factory=dict)
    decoding: Decoding = USUAL
    weights: ClassVar[None] = None  # files carry none

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        tags = {name: tag[index] for name, tag in self.tags.items()}
        return self._image(index), self.targets[index], tags

    def _image(self, index: int) -> Tensor:
        return decode(self.folder / self.paths[index], self.image_size, self.decoding)

    def subset(self, indices: Sequence[int] | Tensor) -> "FileSet":
        """The items at `indices`, in that order."""
        indices = torch.as_tensor(indices, dtype=torch.int64)
        paths = [self.paths[i] for i in indices.tolist()]
        tags = {name: tag[indices] for name, tag in self.tags.items()}
        return replace(self, paths=paths, targets=self.targets[indices], tags=tags)

    def tagged(self, **tags: Tensor | bool | int) -> "FileSet":
        """As TensorSet.tagged."""
        return replace(self, tags={**self.tags, **spread(tags, self.targets)})

    def loader(self, batch_size: int, **options) -> "FileLoader":
        """Batches of this set; options as for FileLoader."""
        return FileLoader(self, batch_size, **options)

    def in_memory(self) -> TensorSet:
        """All images decoded."""
        images = torch.empty(len(self), 3, self.image_size, self.image_size, dtype=torch.uint8)

        def decode_into(index: int) -> None:
            images[index] = self._image(index)

        with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
            for _ in pool.map(decode_into, range(len(self))):
                pass
        return TensorSet(images, self.targets, tags=self.tags)

    def conversions(self) -> Counter[str]:
        """What decoding does to how many of the files; their headers are read."""
        with ThreadPoolExecutor() as pool:
            found = pool.map(lambda path: conversions(self.folder / path, self.decoding), self.paths)
            return Counter(words for of_one in found for words in of_one)

    def hash_into(self, digest) -> None:
        """Feed names, hashes of the files' content, classes, size, decoding and tags to a hashlib object. A file that
        has not changed is not read again."""
        hashes = contents([self.folder / path for path in self.paths])
        for path, found, label in zip(self.paths, hashes, self.targets.tolist(), strict=True):
            digest.update(f"{path}:{found}:{label}:{self.image_size}\n".encode())
        digest.update(f"{self.decoding}\n".encode())
        for name, tag in sorted(self.tags.items()):
            digest.update(f"{name}:{tag.tolist()}\n".encode())


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
            for images, targets, tags in decoded:
                yield Batch(images, targets, tags=tags).map(lambda tensor: tensor.to(self.device))
        except DataError as error:  # a worker's traceback comes as text; its last line is the message
            raise DataError(str(error).strip().rpartition("DataError: ")[2]) from None
        finally:  # left to the garbage collector, workers outlive an epoch that is broken off
            if self.files.workers:
                decoded._shutdown_workers()
