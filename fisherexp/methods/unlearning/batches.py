"""Batches of retained and of forgotten samples in one fit, and how a step tells the two apart.

A forgotten sample of class y carries the label -1 - y. A batch thus stays (images, labels), and loaders, ranks
and saved positions need to know nothing of unlearning.
"""

import dataclasses
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from fisherexp.data.loader import Batch
from fisherexp.scenarios.setting import Setting


def mark(labels: Tensor) -> Tensor:
    """Labels that say "forgotten"; its own inverse."""
    return -1 - labels


def is_forgotten(labels: Tensor) -> Tensor:
    """Which samples are marked: a boolean mask (B,)."""
    return labels < 0


def unmarked(labels: Tensor) -> Tensor:
    """The classes, of marked samples too."""
    return torch.where(is_forgotten(labels), mark(labels), labels)


def marked(images: Any) -> Any:
    """The same set of images, with every sample marked as forgotten."""
    return marked_where(images, torch.ones_like(images.labels, dtype=torch.bool))


def marked_where(images: Any, forgotten: Tensor) -> Any:
    """The same set of images, with those of the mask `forgotten` (N,) marked."""
    labels = torch.where(forgotten.to(images.labels.device), mark(images.labels), images.labels)
    return dataclasses.replace(images, labels=labels)


def shuffled(setting: Setting, images: Any, batch_size: int | None = None) -> Any:
    """Shuffled, augmented batches of a set of images."""
    # Batch statistics of a single image are none: leave such a last batch out, another image each epoch.
    single = len(images) > 1 and len(images) % (batch_size or setting.data.batch_size) == 1
    return setting.loader_of(images, shuffle=True, augment=True, batch_size=batch_size, drop_last=single)


class Combined:
    """Two loaders as one; the position is that of both."""

    # Lightning looks for this one where it finds a sampler.
    batch_sampler = None

    def __init__(self, first: Any, second: Any) -> None:
        self.loaders = (first, second)

    @property
    def sampler(self) -> "Combined":
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        for loader in self.loaders:
            loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, dict[str, int]]:
        first, second = self.loaders
        return {"first": first.state_dict(), "second": second.state_dict()}

    def load_state_dict(self, state: dict[str, dict[str, int]]) -> None:
        first, second = self.loaders
        first.load_state_dict(state["first"])
        second.load_state_dict(state["second"])


class InTurn(Combined):
    """In every epoch, the batches of the first loader, then those of the second."""

    def __iter__(self) -> Iterator[Batch]:
        if all(loader.batch >= len(loader) for loader in self.loaders):
            self.set_epoch(self.loaders[0].epoch + 1)
        for loader in self.loaders:
            if loader.batch < len(loader):  # else a saved position lies behind it
                yield from loader

    def __len__(self) -> int:
        return sum(map(len, self.loaders))


class SideBySide(Combined):
    """Each batch of the first loader joined with one of the second, which starts again as often as needed."""

    def __iter__(self) -> Iterator[Batch]:
        first, second = self.loaders
        again = (batch for _ in repeat(None) for batch in second)
        for images, labels in first:
            others, other_labels = next(again)
            yield torch.cat([images, others]), torch.cat([labels, other_labels])

    def __len__(self) -> int:
        return len(self.loaders[0])


def retained_with_forgotten(setting: Setting) -> Combined:
    """Each batch of retained samples together with one of forgotten ones; an epoch is a pass over the retained."""
    retain, forget = setting.parts["retain"], marked(setting.parts["forget"])
    return SideBySide(shuffled(setting, retain), shuffled(setting, forget))


def forgotten_then_retained(setting: Setting, forget_batch_size: int, retain_batch_size: int) -> Combined:
    """A pass over the forgotten samples, then one over the retained ones, in every epoch."""
    forget, retain = marked(setting.parts["forget"]), setting.parts["retain"]
    return InTurn(shuffled(setting, forget, forget_batch_size), shuffled(setting, retain, retain_batch_size))
