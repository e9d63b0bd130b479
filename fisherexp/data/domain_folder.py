"""Any folder of domains: one folder per domain, in it one folder of images per class."""

from pathlib import Path
from typing import Any

import torch

from fisherexp.config.types import Count, Size
from fisherexp.data.domains import DomainData
from fisherexp.data.errors import DataError
from fisherexp.data.files import FileSet
from fisherexp.data.image_folder import SUFFIXES, folders
from fisherexp.data.tensors import TensorSet


class DomainFolder(DomainData):
    """<path>/<domain>/<class>/…: the layout of PACS, VLCS, OfficeHome, DomainNet.

    path: absolute, or relative to the working directory or the data folder.
    image_size: images become color images of this height and width (centered square part, resized).
    in_memory: decode everything once; false decodes batch by batch, for data larger than memory.
    workers: processes that decode when in_memory is false.
    Further options: see ImageData. Domains and classes are the folder names in sorted order; a domain may lack a
    class.
    """

    title = "folder of domains"
    mean = [0.485, 0.456, 0.406]  # of ImageNet
    std = [0.229, 0.224, 0.225]

    def __init__(
        self, path: str, image_size: Count = 64, in_memory: bool = True, workers: Size = 0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.path, self.image_size, self.in_memory, self.workers = path, image_size, in_memory, workers
        self.input_shape = (3, image_size, image_size)
        self._domains: dict[str, TensorSet | FileSet] | None = None

    def domains(self, seed: int) -> dict[str, TensorSet | FileSet]:
        if self._domains is None:
            root = self.locate(self.path)
            names = folders(root, "domain")
            if len(names) < 2:
                raise DataError(f"{root} has the one domain {names[0]}; at least two are needed")
            self.class_names = sorted({name for domain in names for name in folders(root / domain, "class")})
            self.num_classes = len(self.class_names)
            files = {domain: self._files(root, domain) for domain in names}
            self._domains = {d: found.in_memory() for d, found in files.items()} if self.in_memory else files
        return dict(self._domains)

    def _files(self, root: Path, domain: str) -> FileSet:
        paths, labels = [], []
        for label, name in enumerate(self.class_names):
            found = sorted(p for p in (root / domain / name).rglob("*") if p.suffix.lower() in SUFFIXES)
            paths += [path.relative_to(root).as_posix() for path in found]
            labels += [label] * len(found)
        if not paths:
            raise DataError(f"{root / domain} has no images ({', '.join(SUFFIXES)})")
        return FileSet(root, paths, torch.tensor(labels), self.image_size, self.workers)


class PACS(DomainFolder):
    """Photos, art paintings, cartoons and sketches of seven kinds of things (Li et al., ICCV 2017, arXiv 1710.03077).

    9,991 images; PACS/<domain>/<class>/ in the data folder, of any size. Options: DomainFolder.
    """

    title = "PACS"
    num_classes = 7
    class_names = ["dog", "elephant", "giraffe", "guitar", "horse", "house", "person"]

    def __init__(self, path: str = "PACS", **options: Any) -> None:
        super().__init__(path, **options)
