"""Digits whose color predicts the label better than their shape, but not in the target domain.

Colored MNIST of Arjovsky et al. 2019 (Invariant Risk Minimization, arXiv 1907.02893), exactly: the label is
y = 1[digit < 5], flipped with probability 0.25; the color is y, flipped with probability e, where e is 0.2 and 0.1
in the two training domains and 0.9 in the target. An image has two channels, and the one that is not its color is
zero. Shape predicts 75 % of the labels everywhere, so no honest classifier passes 75 % in the target.
"""

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.config.types import Count, Probability
from fisherexp.data.digits import Digits
from fisherexp.data.domains import DomainData
from fisherexp.data.errors import DataError
from fisherexp.data.tensors import TensorSet
from fisherexp.data.torchvision_sets import MNIST
from fisherexp.seeds import generator

# Domain -> probability that the color contradicts the label.
COLOR_FLIPS = {"e20": 0.2, "e10": 0.1, "e90": 0.9}


def colored(images: Tensor, labels: Tensor, color_flip: float, drawn: torch.Generator) -> TensorSet:
    """Gray images (N, 1, H, W) in two channels, of which the one that is not their color is zero.

    labels: 0 or 1, (N,). color_flip: probability that the color is 1 - label instead of the label.
    """
    colors = labels ^ (torch.rand(len(labels), generator=drawn) < color_flip).long()
    both = images.repeat(1, 2, 1, 1)
    both[torch.arange(len(labels)), 1 - colors] = 0
    return TensorSet(both, labels)


class Colored(DomainData):
    """Domains e20, e10 (for training) and e90 (target), and gray: the target's images in both channels.

    train_images, test_images: how many to use; null for all. label_flip: share of wrong labels, in all domains.
    imbalance: how training samples are shared out between the two domains:
        none: alternately. intended: the first gets `majority` of the digits below 5 and 1 - majority of the others,
        the second the rest. official: as the code of arXiv 2308.11778 does, which takes shares of the length of a
        mask over all images for shares of a class: with 50,000 images the first gets every digit below 5.
    Further options: see ImageData. The seed is that of the run: every restart shuffles, flips and colors anew.
    """

    num_classes = 2
    class_names = ["5 to 9", "0 to 4"]
    one_logit = True
    only_evaluated = ("gray",)
    published_holdout = 0.0
    mean = [0.0, 0.0]
    std = [1.0, 1.0]
    mirrors = False

    def __init__(
        self,
        train_images: Count | None = None,
        test_images: Count | None = None,
        label_flip: Probability = 0.25,
        imbalance: Literal["none", "intended", "official"] = "none",
        majority: Probability = 0.97,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.train_images, self.test_images = train_images, test_images
        self.label_flip, self.imbalance, self.majority = label_flip, imbalance, majority
        self._gray: tuple[TensorSet, TensorSet] | None = None

    @property
    def altered(self) -> bool:
        sizes = (self.train_images, self.test_images)
        return super().altered or sizes != (None, None) or (self.label_flip, self.imbalance) != (0.25, "none")

    @abstractmethod
    def read_gray(self) -> tuple[TensorSet, TensorSet]:
        """Digits (N, 1, H, W) with labels 0 to 9: those of the training domains, those of the target."""

    def domains(self, seed: int) -> dict[str, TensorSet]:
        if self._gray is None:
            self._gray = self.read_gray()
        drawn = generator("colours", seed)
        train, test = self._gray
        train = train.subset(torch.randperm(len(train), generator=drawn)[: self.train_images])
        test = test.subset(torch.arange(min(len(test), self.test_images or len(test))))
        below = train.targets < 5
        first = first_domain(below, self.imbalance, self.majority)
        if first.all() or not first.any():
            raise DataError(
                f"{self.title}: data.imbalance={self.imbalance} with data.majority={self.majority} leaves a training "
                f"domain of {len(train)} images empty"
            )
        found = {}
        for (name, color_flip), digits in zip(
            COLOR_FLIPS.items(),
            (train.subset(first.nonzero().flatten()), train.subset((~first).nonzero().flatten()), test),
            strict=True,
        ):
            flipped = torch.rand(len(digits), generator=drawn) < self.label_flip
            labels = (digits.targets < 5).long() ^ flipped.long()
            found[name] = colored(digits.inputs, labels, color_flip, drawn)
        found["gray"] = TensorSet(test.inputs.repeat(1, 2, 1, 1), found["e90"].targets)
        return found


def first_domain(below: Tensor, imbalance: str, majority: float) -> Tensor:
    """Which training samples go to the first domain: a mask (N,). below: the digits below 5, (N,)."""
    chosen = torch.zeros_like(below)
    if imbalance == "none":
        chosen[::2] = True
        return chosen
    for members, share in ((below, majority), (~below, 1 - majority)):
        of_class = members.nonzero().flatten()
        base = len(below) if imbalance == "official" else len(of_class)
        chosen[of_class[: round(share * base)]] = True
    return chosen


class ColoredMNIST(Colored):
    """Colored MNIST at 14×14 pixels (every second row and column), 25,000 + 25,000 + 10,000 images, all of them
    from MNIST's training set. Options: Colored; root and download as for data=mnist.
    """

    title = "Colored MNIST"
    input_shape = (2, 14, 14)

    def read_gray(self) -> tuple[TensorSet, TensorSet]:
        digits = MNIST(root=str(self.root), download=self.download).load().train
        small = TensorSet(digits.inputs[:, :, ::2, ::2].contiguous(), digits.targets)
        return small.subset(torch.arange(50_000)), small.subset(torch.arange(50_000, 60_000))


class ColoredDigits(Colored):
    """The same game on scikit-learn's digits, 700 + 700 + 397 images of 8×8 pixels: no download. Options: Colored."""

    title = "colored digits"
    input_shape = (2, 8, 8)

    def read_gray(self) -> tuple[TensorSet, TensorSet]:
        parts = Digits().load()
        images = torch.cat([parts.train.inputs, parts.test.inputs])
        everything = TensorSet(images, torch.cat([parts.train.targets, parts.test.targets]))
        return everything.subset(torch.arange(1400)), everything.subset(torch.arange(1400, len(everything)))
