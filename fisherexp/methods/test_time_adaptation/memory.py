"""The memory of RoTTA: few images, balanced over predicted classes, rather new and rather certain."""

import math
from typing import Any

import torch
from torch import Tensor


def badness(ages: Tensor, entropies: Tensor, capacity: int, classes: int, by_age: float, by_entropy: float) -> Tensor:
    """by_age / (1 + exp(-age / capacity)) + by_entropy · H / ln C, shape (N,): the largest goes first."""
    return by_age / (1 + torch.exp(-ages / capacity)) + by_entropy * entropies / math.log(classes)


class BalancedMemory:
    """At most `capacity` images, and of each class, capacity / classes.

    An image of a class that has its share replaces the worst of that class, another image the worst of the largest
    classes once the memory is full; neither if what it would replace is no worse. Ages are in images seen.
    """

    def __init__(self, capacity: int, classes: int, by_age: float, by_entropy: float) -> None:
        self.capacity, self.classes, self.by_age, self.by_entropy = capacity, classes, by_age, by_entropy
        self.images: list[Tensor] = []
        self.labels: list[int] = []
        self.entropies: list[float] = []
        self.ages: list[int] = []

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, image: Tensor, label: int, entropy: float) -> None:
        """Offer an image (C, H, W) with its predicted class and the entropy of the prediction in nats."""
        if self._make_room(label, entropy):
            self.images.append(image)
            self.labels.append(label)
            self.entropies.append(entropy)
            self.ages.append(0)
        self.ages = [age + 1 for age in self.ages]

    def batch(self) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W), sorted by class, and their ages as shares of the capacity (N,)."""
        order = sorted(range(len(self)), key=lambda i: self.labels[i])
        ages = torch.tensor([self.ages[i] / self.capacity for i in order])
        return torch.stack([self.images[i] for i in order]), ages

    def plain(self) -> dict[str, Any]:
        """Its content as plain containers and tensors."""
        return {
            "images": [image.cpu().clone() for image in self.images],
            "labels": self.labels,
            "entropies": self.entropies,
            "ages": self.ages,
        }

    def _make_room(self, label: int, entropy: float) -> bool:
        counts = [self.labels.count(c) for c in range(self.classes)]
        if counts[label] >= self.capacity / self.classes:
            crowded = {label}
        elif len(self) < self.capacity:
            return True
        else:
            crowded = {c for c in range(self.classes) if counts[c] == max(counts)}
        candidates = [i for i in range(len(self)) if self.labels[i] in crowded]
        scores = self._badness([self.ages[i] for i in candidates], [self.entropies[i] for i in candidates])
        worst = scores.max()
        if not worst > self._badness([0], [entropy])[0]:
            return False
        leaving = candidates[int((scores == worst).nonzero()[-1])]
        for column in (self.images, self.labels, self.entropies, self.ages):
            del column[leaving]
        return True

    def _badness(self, ages: list[int], entropies: list[float]) -> Tensor:
        columns = (torch.tensor(column, dtype=torch.float64) for column in (ages, entropies))
        return badness(*columns, self.capacity, self.classes, self.by_age, self.by_entropy)
