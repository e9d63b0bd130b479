"""A batch of every training domain in every step."""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from fisherexp.data.loader import Batch
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import derive


class Together:
    """Batches of several loaders joined, in their order; an epoch is a pass over the longest, the others start again
    as often as needed. The position, which Lightning saves and restores, is that of all of them.
    """

    # Lightning looks for this one where it finds a sampler.
    batch_sampler = None

    def __init__(self, loaders: list[Any]) -> None:
        self.loaders = loaders

    def __iter__(self) -> Iterator[Batch]:
        leading = max(range(len(self.loaders)), key=lambda i: len(self.loaders[i]))
        streams = [endless(loader) for loader in self.loaders]
        for first in self.loaders[leading]:
            batches = [first if i == leading else next(stream) for i, stream in enumerate(streams)]
            yield torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])

    def __len__(self) -> int:
        return max(map(len, self.loaders))

    @property
    def sampler(self) -> "Together":
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        for loader in self.loaders:
            loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, dict[str, int]]:
        return {str(i): loader.state_dict() for i, loader in enumerate(self.loaders)}

    def load_state_dict(self, state: dict[str, dict[str, int]]) -> None:
        for i, loader in enumerate(self.loaders):
            loader.load_state_dict(state[str(i)])


def endless(loader: Any) -> Iterator[Batch]:
    """The batches of a loader, again and again."""
    for _ in repeat(None):
        yield from loader


def of_every_domain(setting: Setting) -> Together:
    """Batches of `data.batch_size` samples of each domain; a smaller domain is in every batch as a whole.

    Labels are class + num_classes · domain, as `scenarios.domains.marked` makes them. Raises ValueError for a domain of
    fewer samples than ranks: some would never see it.
    """
    images, size = setting.parts["domains"], setting.data.batch_size
    domain_of = images.labels // setting.data.num_classes
    loaders = []
    for number in range(int(domain_of.max()) + 1):
        domain = images.subset((domain_of == number).nonzero().flatten())
        if len(domain) < setting.world_size:
            raise ValueError(
                f"training domain {number} has {len(domain)} samples for {setting.world_size} ranks; "
                f"nearest valid: trainer.devices={len(domain)}"
            )
        whole = len(domain) <= size * setting.world_size
        # A last batch that is smaller than the others would be compared with full ones of other domains.
        loaders.append(
            setting.loader_of(
                domain,
                shuffle=not whole,
                augment=True,
                batch_size=size,
                drop_last=not whole,
                seed=derive("batches", setting.seed, number),
            )
        )
    return Together(loaders)


def by_domain(values: Tensor, labels: Tensor, num_classes: int) -> list[Tensor]:
    """Split the rows of `values` (B, …) by the domains of marked labels (B,), which follow each other."""
    counts = torch.bincount(labels // num_classes)
    return list(values.split(counts.tolist()))
