"""Amnesiac unlearning: learn wrong labels for what is to be forgotten, among all that is retained.

Paper: Graves, Nagisetty, Ganesh, AAAI 2021, arXiv 2010.10981, in the form of the SSD authors' code (arXiv
2308.07707): every forgotten sample gets one label for good, uniform among the C - 1 wrong ones,

    min_θ  Σ_{i ∈ D_r} CE(x_i, y_i) + Σ_{i ∈ D_f} CE(x_i, ỹ_i),   ỹ_i ~ U({0 … C-1} \\ {y_i}),   from the source model

The other half of the paper, subtracting the stored updates of batches with forgotten samples, needs a record of
training that a source model does not have.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative, Positive
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.methods.unlearning.batches import shuffled
from fisherexp.seeds import generator


def wrong_labels(labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    """For each label (N,) another one, uniform among the others."""
    step = torch.randint(1, num_classes, labels.shape, generator=generator)
    return (labels + step.to(labels.device)) % num_classes


class Amnesiac(ERM):
    """Train on, from the source model, on all data, with wrong labels for the forgotten ones."""

    paper = "Graves et al., AAAI 2021, arXiv 2010.10981"
    requires = ("class_labels",)
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "train"

    def __init__(
        self, model: nn.Module, epochs: Count, lr: Positive, weight_decay: NonNegative, batch_size: Count
    ) -> None:
        super().__init__(model, Recipe(epochs, "adam", lr, 0.0, weight_decay, schedule="constant"))
        self.batch_size = batch_size

    def batches(self, setting: Any) -> Any:
        train = setting.parts["train"]
        wrong = wrong_labels(train.targets, setting.data.num_classes, generator("amnesiac", setting.seed))
        labels = torch.where(setting.forgotten.to(wrong.device), wrong, train.targets)
        return shuffled(setting, dataclasses.replace(train, targets=labels), self.batch_size)
