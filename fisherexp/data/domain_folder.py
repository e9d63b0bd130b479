"""Any folder of domains: one folder per domain, in it one folder of images per class."""

from typing import Any

import torch

from fisherexp.config.types import Count, Size
from fisherexp.data.domains import DomainData
from fisherexp.data.errors import DataError
from fisherexp.data.files import FileSet
from fisherexp.data.folder_reader import FolderReader
from fisherexp.data.folders import classes, folders
from fisherexp.data.remarks import say
from fisherexp.data.tensors import TensorSet
from fisherexp.seeds import generator


class DomainFolder(DomainData):
    """<path>/<domain>/<class>/…: the layout of PACS, VLCS, OfficeHome, DomainNet.

    path: absolute, or relative to the working directory or the data folder.
    image_size: images become color images of this height and width (centered square part, resized).
    in_memory: decode everything once; false decodes batch by batch, for data larger than memory.
    workers: processes that decode when in_memory is false.
    intensity_range, exif_orientation: see ImageFolder.
    images_per_domain: how many of each to keep, drawn at random by `seed`; a smaller domain is kept whole, and so are
        all by default.
    Further options: see ImageData. Domains and classes are the folder names in sorted order; a domain may lack a
    class.
    """

    title = "folder of domains"
    mean = [0.485, 0.456, 0.406]  # of ImageNet
    std = [0.229, 0.224, 0.225]

    def __init__(
        self,
        path: str,
        image_size: Count = 64,
        in_memory: bool = True,
        workers: Size = 0,
        intensity_range: list[float] | None = None,
        exif_orientation: bool = True,
        images_per_domain: Count | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.intensity_range, self.exif_orientation = intensity_range, exif_orientation
        self.path, self.image_size, self.in_memory, self.workers = path, image_size, in_memory, workers
        self.images_per_domain = images_per_domain
        self.input_shape = (3, image_size, image_size)
        self._domains: dict[str, TensorSet | FileSet] | None = None

    def domains(self, seed: int) -> dict[str, TensorSet | FileSet]:
        if self._domains is None:
            root = self.locate(self.path)
            names = folders(root, "domain")
            if len(names) < 2:
                raise DataError(f"{root} has the one domain {names[0]}; at least two are needed")
            self.class_names = sorted({name for domain in names for name in classes(root / domain)})
            self.num_classes = len(self.class_names)
            reader = FolderReader(self.image_size, self.workers, self.intensity_range, self.exif_orientation)
            files = {domain: reader.files(root, root / domain, self.class_names, some=True) for domain in names}
            if self.images_per_domain is not None:
                files = {domain: self._drawn(domain, found) for domain, found in files.items()}
            self.remarks = reader.remarks(*files.values())
            say(root, self.remarks)
            self._domains = {d: found.in_memory() for d, found in files.items()} if self.in_memory else files
        return dict(self._domains)

    @property
    def altered(self) -> bool:
        return super().altered or self.images_per_domain is not None

    def _drawn(self, domain: str, found: FileSet) -> FileSet:
        order = torch.randperm(len(found), generator=generator("images_per_domain", self.seed, domain))
        return found.subset(order[: self.images_per_domain].sort().values)


class PACS(DomainFolder):
    """Photos, art paintings, cartoons and sketches of seven kinds of things (Li et al., ICCV 2017, arXiv 1710.03077).

    9,991 images; PACS/<domain>/<class>/ in the data folder, of any size. Options: DomainFolder.
    """

    title = "PACS"
    num_classes = 7
    class_names = ["dog", "elephant", "giraffe", "guitar", "horse", "house", "person"]

    def __init__(self, path: str = "PACS", **options: Any) -> None:
        super().__init__(path, **options)
