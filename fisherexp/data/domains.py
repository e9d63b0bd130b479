"""Data sets whose samples come from several domains: the face that `scenario=domains` reads."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch

from fisherexp.data.batch import Batch, joined
from fisherexp.data.errors import DataError
from fisherexp.data.files import FileSet
from fisherexp.data.image_data import ImageData
from fisherexp.data.tensors import TensorSet


class DomainData(ImageData):
    """An ImageData with domains. Its own train and test, for scenarios that know nothing of domains, are all
    domains but the last, and the last.

    only_evaluated: names of domains that are variants of the target (in gray, say) and never trained on.
    published_holdout: share of every domain that is held out where its figures were published; DomainBed's.
    """

    provides = ("images", "floats", "class_labels", "domains")
    only_evaluated: ClassVar[tuple[str, ...]] = ()
    published_holdout: ClassVar[float] = 0.2

    @abstractmethod
    def domains(self, seed: int) -> dict[str, TensorSet | FileSet]:
        """The domains by name, the usual target last, then those in `only_evaluated`.

        seed: of what is drawn at random in making them (colors, flipped labels), if anything is.
        Raises DataError, in one line, for whatever the user can put right.
        """

    def read(self) -> tuple[TensorSet | FileSet, TensorSet | FileSet]:
        given = {"validation": self.validation_share}
        given |= {name: getattr(self, name) for name in ("train_size", "classes", "superclasses")}
        if refused := [name for name, value in given.items() if value]:
            raise DataError(f"{self.title}: data.{refused[0]} knows no domains; scenario.holdout puts samples aside")
        domains = self.domains(self.seed)
        *others, last = (images for name, images in domains.items() if name not in self.only_evaluated)
        return pooled(others), last


def pooled(sets: Sequence[TensorSet | FileSet]) -> TensorSet | FileSet:
    """Several sets as one, in their order, without their tags. Files must have their paths from the same folder.

    Raises ValueError where some have weights and others none.
    """
    labels = torch.cat([part.targets for part in sets])
    first = sets[0]
    if isinstance(first, TensorSet):
        batch = joined([Batch(part.inputs, part.targets, part.weights) for part in sets])
        return TensorSet(batch.inputs, batch.targets, batch.weights)
    paths = [path for part in sets for path in part.paths]
    return replace(first, paths=paths, targets=labels, tags={})
