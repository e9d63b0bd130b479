"""A test set and its corrupted copies."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from fisherexp.data.corruptions.generated import corrupted
from fisherexp.data.corruptions.published import published
from fisherexp.data.files import FileSet
from fisherexp.data.store import Store
from fisherexp.data.tensors import TensorSet

Images = TensorSet | FileSet


class Suite:
    """The images of `test` at `order`, clean and under any corruption, always in that order.

    folder: of published copies (see published.py), else they are generated, from `seed`, with the constants of
    `table`, with the frost textures in `frost_folder` if there is one, and saved in JPEG of `quality` unless that is
    None. store: keeps what is generated.
    """

    def __init__(
        self,
        test: Images,
        order: Tensor,
        *,
        table: str = "cifar",
        seed: int = 0,
        folder: Path | None = None,
        frost_folder: Path | None = None,
        quality: int | None = None,
        store: Store | None = None,
    ) -> None:
        self.test, self.order, self.folder = test, order, folder
        self.options = {"table": table, "seed": seed, "frost_folder": frost_folder, "quality": quality, "store": store}
        self.clean = test.subset(order)

    def corrupted(self, name: str, severity: int) -> Images:
        """The images under one corruption."""
        if self.folder is not None:
            return published(self.folder, name, severity, self.test).subset(self.order)
        return corrupted(self._decoded, name, severity, **self.options)

    @cached_property
    def _decoded(self) -> TensorSet:
        return self.clean.in_memory() if isinstance(self.clean, FileSet) else self.clean


def joined(sets: list[Images]) -> Images:
    """Several sets as one, one after the other. Sets of files must share their folder."""
    labels = torch.cat([images.targets for images in sets])
    if isinstance(sets[0], TensorSet):
        return TensorSet(torch.cat([images.inputs for images in sets]), labels)
    return replace(sets[0], paths=[path for s in sets for path in s.paths], targets=labels, tags={})
