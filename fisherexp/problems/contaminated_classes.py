"""Handwritten digits to classify by a linear map, of which a share is as far out as it is wrongly labeled."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fisherexp.config.types import Count, Minority, Positive
from fisherexp.data.digits import Digits
from fisherexp.data.errors import DataError
from fisherexp.problems.numerical import Numerical
from fisherexp.seeds import generator


class LinearClassifier(NamedTuple):
    """weights: (classes, d + 1), the last column for a constant. sample_weights: (n,) of sum one, or None."""

    weights: Tensor
    sample_weights: Tensor | None = None


class ContaminatedDigits(Numerical):
    """`n` images of the first `digits` digits, in `dimension` principal components, of variance one on average, and a
    constant.

    contamination: share of them, drawn from the run's seed, whose components are multiplied by `stretch` and whose
    label is that of the next class. A solution is a LinearClassifier. Metrics: test_accuracy, in %, on images that are
    as they were; outlier_mass: share of its sample weights that lies on outliers.
    """

    title = "contaminated_digits"
    provides = ("contaminated_classes",)
    headings = {"test_accuracy": "test\nacc. %", "outlier_mass": "outlier\nmass"}
    better = {"test_accuracy": "higher", "outlier_mass": "lower"}

    def __init__(
        self,
        n: Count = 300,
        digits: Count = 4,
        dimension: Count = 6,
        contamination: Minority = 0.2,
        stretch: Positive = 5.0,
    ) -> None:
        super().__init__()
        self.n, self.digits, self.dimension = n, digits, dimension
        self.contamination, self.stretch = contamination, stretch

    def read(self, seed: int) -> Mapping[str, Tensor]:
        data = Digits().load()
        among = {part: getattr(data, part).targets < self.digits for part in ("train", "test")}
        labels = {part: getattr(data, part).targets[kept] for part, kept in among.items()}
        pixels = {part: getattr(data, part).inputs[kept].flatten(1).double() / 255 for part, kept in among.items()}
        most_of = {"n": len(labels["train"]), "digits": data.num_classes, "dimension": pixels["train"].shape[1]}
        for option, most in most_of.items():
            value = getattr(self, option)
            if value > most:
                raise DataError(f"data.{option}={value}: at most {most} is expected")
        middle = pixels["train"].mean(0)
        axes = torch.linalg.svd(pixels["train"] - middle, full_matrices=False).Vh[: self.dimension].T
        scale = ((pixels["train"] - middle) @ axes).square().mean().sqrt()
        inputs = {part: (found - middle) @ axes / scale for part, found in pixels.items()}
        order = torch.randperm(len(labels["train"]), generator=generator("contaminated_classes", seed))[: self.n]
        outlier = torch.arange(self.n) < round(self.contamination * self.n)
        given, told = inputs["train"][order], labels["train"][order]
        return {
            "inputs": _with_constant(torch.where(outlier[:, None], self.stretch * given, given)),
            "labels": torch.where(outlier, (told + 1) % self.digits, told),
            "outlier": outlier,
            "test_inputs": _with_constant(inputs["test"]),
            "test_labels": labels["test"],
        }

    def evaluate(self, solution: LinearClassifier) -> dict[str, float]:
        guessed = (self.instance["test_inputs"] @ solution.weights.T).argmax(1)
        found = {"test_accuracy": 100 * float((guessed == self.instance["test_labels"]).double().mean())}
        if solution.sample_weights is not None:
            found["outlier_mass"] = float(solution.sample_weights[self.instance["outlier"]].sum())
        return found

    def about(self) -> dict[str, Any]:
        return {"n": self.n, "dimension": self.dimension, "contamination": self.contamination}


def _with_constant(inputs: Tensor) -> Tensor:
    return torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)
