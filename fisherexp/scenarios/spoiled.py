"""Training data of which some are not as they should be; test data stay as they are."""

import dataclasses
from typing import Any

import torch

from fisherexp.config.types import Count, Share
from fisherexp.data.datamodule import LabeledData
from fisherexp.scenarios.forgetting import drawn
from fisherexp.scenarios.plain import Plain
from fisherexp.scenarios.setting import Setting, Store
from fisherexp.seeds import generator


class NoisyLabels(Plain):
    """A wrong label for a random share of the training samples: any other class, all equally likely.

    fraction: of the samples. Validation and test data have their own labels.
    """

    name = "noisy_labels"
    requires = ("class_labels",)

    def __init__(self, fraction: Share = 0.2) -> None:
        self.fraction = fraction

    def setting(self, data: LabeledData, seed: int, store: Store | None = None) -> Setting:
        """Parts and evaluation as of the plain data; samples of 'train' have the tag 'wrong'."""
        labels, wrong = data.train.targets, drawn(len(data.train), self.fraction, "noisy_labels", seed)
        step = torch.randint(1, data.num_classes, labels.shape, generator=generator("noise", seed))
        noisy = torch.where(wrong, (labels + step) % data.num_classes, labels)
        return _spoiled(super().setting(data, seed, store), dataclasses.replace(data.train, targets=noisy), wrong=wrong)


class Duplicates(Plain):
    """A few training samples over and over: copies of them take the place of a random share of the others.

    fraction: of the samples that are replaced. originals: how many different ones they are copies of.
    """

    name = "duplicates"

    def __init__(self, fraction: Share = 0.3, originals: Count = 8) -> None:
        self.fraction, self.originals = fraction, originals

    def setting(self, data: LabeledData, seed: int, store: Store | None = None) -> Setting:
        """Parts and evaluation as of the plain data; samples of 'train' have the tag 'copy'.

        Raises ValueError where fewer samples than originals would stay.
        """
        total = len(data.train)
        copies = drawn(total, self.fraction, "duplicates", seed)
        kept = (~copies).nonzero().flatten()
        if len(kept) < self.originals:
            raise ValueError(
                f"scenario.originals={self.originals}, but scenario.fraction={self.fraction} keeps {len(kept)} of "
                f"{total} training samples"
            )
        draws = generator("originals", seed)
        originals = kept[torch.randperm(len(kept), generator=draws)[: self.originals]]
        rows = torch.arange(total)
        rows[copies] = originals[torch.randint(self.originals, (int(copies.sum()),), generator=draws)]
        return _spoiled(super().setting(data, seed, store), data.train.subset(rows), copy=copies)


def _spoiled(setting: Setting, train: Any, **tags: torch.Tensor) -> Setting:
    return dataclasses.replace(setting, parts=setting.parts | {"train": train.tagged(**tags)}, altered=True)
