"""Ridge weights of multinomial logistic regression, chosen on a validation set.

    h(W, θ) = mean training loss + ½ Σ_jc exp(θ_jc) W_jc²,    g(W) = mean validation loss

W_jc belongs to pixel j and class c of scikit-learn's digits. θ_jc is one number, one for each pixel, or one for each
entry, as the authors of MAID have it on MNIST (github.com/MohammadSadeghSalehi/MAID, MultiClassRegression.py); they
choose by the test images.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.config.types import Count
from fisherexp.problems.bilevel import Bilevel, Constants
from fisherexp.seeds import generator

CLASSES, PIXELS, IMAGES = 10, 64, 1797
SHAPES = {"all": (1, 1), "pixel": (PIXELS, 1), "entry": (PIXELS, CLASSES)}


class LogisticRidge(Bilevel):
    """`train` images to fit and as many to choose by, drawn from the run's seed; all others judge.

    weight_for: what has a ridge weight of its own: all of W together, each pixel, or each entry of W: 1, 64 or 640
    hyperparameters. start: every θ to begin with. test_accuracy: in %, of the fit with the θ found.
    """

    headings = {"upper_loss": "validation\nloss", "start_loss": "at the\nstart", "test_accuracy": "test\nacc. %"}
    better = {"upper_loss": "lower", "test_accuracy": "higher"}

    def __init__(
        self, train: Count = 300, start: float = -3.0, weight_for: Literal["all", "pixel", "entry"] = "pixel"
    ) -> None:
        super().__init__()
        if 2 * train >= IMAGES:
            raise ValueError(
                f"data.train={train}: at most {(IMAGES - 1) // 2}, half of the images less those that judge"
            )
        if not -6 <= start <= 3:
            raise ValueError(f"data.start={start:g}: from -6 to 3; below, the lower level takes very long")
        self.train, self.first, self.weight_for = train, start, weight_for

    def read(self, seed: int) -> Mapping[str, Tensor]:
        from sklearn.datasets import load_digits

        images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
        order = torch.randperm(IMAGES, generator=generator("bilevel_ridge", seed))
        parts = order.split([self.train, self.train, IMAGES - 2 * self.train])
        found = {}
        for name, part in zip(("train", "validation", "test"), parts, strict=True):
            found |= {f"{name}.images": images[part].double() / 16, f"{name}.labels": labels[part].long()}
        return found

    def _loss(self, part: str, x: Tensor) -> Tensor:
        logits = self.instance[f"{part}.images"] @ x
        return torch.nn.functional.cross_entropy(logits, self.instance[f"{part}.labels"])

    def upper(self, x: Tensor) -> Tensor:
        return self._loss("validation", x)

    def lower(self, x: Tensor, theta: Tensor) -> Tensor:
        return self._loss("train", x) + (self._weights(theta) * x.square()).sum() / 2

    def _weights(self, theta: Tensor) -> Tensor:
        """(1, 1), (64, 1) or (64, 10)."""
        return theta.exp().reshape(SHAPES[self.weight_for])

    @property
    def upper_smoothness(self) -> float:
        return self._curvature("validation")

    def _curvature(self, part: str) -> float:
        """The Hessian of a softmax's loss in its logits has norm at most ½."""
        images = self.instance[f"{part}.images"]
        return float(torch.linalg.matrix_norm(images, 2).square()) / (2 * len(images))

    def constants(self, x: Tensor, theta: Tensor) -> Constants:
        weights = self._weights(theta.detach())
        # The column of a hyperparameter is its entries of W times its weight; no two columns share an entry.
        columns = (weights * x.detach()).square().sum_to_size(SHAPES[self.weight_for]).sqrt()
        mu = float(weights.min())
        # Of the loss along a, the third derivative is a third central moment: variance ≤ ½ ‖a‖² times range ≤ √2 ‖a‖.
        third = float(self.instance["train.images"].norm(dim=1).pow(3).mean()) / 2**0.5
        return Constants(
            mu=mu,
            smoothness=self._curvature("train") + float(weights.max()),
            jacobian=float(columns.max()),
            jacobian_slope=float(weights.max()),
            inverse_slope=third / mu**2,
        )

    @property
    def start(self) -> tuple[Tensor, Tensor]:
        kind = torch.float64
        theta = torch.full(SHAPES[self.weight_for], float(self.first), dtype=kind)
        return torch.zeros(PIXELS, CLASSES, dtype=kind), theta.flatten()

    def evaluate(self, solution: Tensor) -> dict[str, float]:
        x = self.solved(solution, self.start[0], 1e-4).x
        right = (self.instance["test.images"] @ x).argmax(1) == self.instance["test.labels"]
        return {**super().evaluate(solution), "test_accuracy": 100 * float(right.double().mean())}

    def about(self) -> dict[str, Any]:
        return {"train": self.train, "start": self.first, "weight_for": self.weight_for}
