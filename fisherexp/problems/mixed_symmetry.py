"""Vectors made from points of the plane: turning the points turns the vector, mirroring them need not mirror it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fisherexp.config.types import Count, NonNegative
from fisherexp.problems.numerical import Numerical
from fisherexp.seeds import generator

HELD_OUT = 1000
TURN = torch.tensor([[0.0, -1.0], [1.0, 0.0]])  # by 90 degrees
MIRROR = torch.tensor([[1.0, 0.0], [0.0, -1.0]])


def moved(points: Tensor, matrix: Tensor) -> Tensor:
    """Every point of rows (n, 2k) of k points mapped by a matrix (2, 2)."""
    return (points.unflatten(1, (-1, 2)) @ matrix.T).flatten(1)


def equivariance_error(function: Callable[[Tensor], Tensor], points: Tensor, matrix: Tensor) -> float:
    """Mean over rows of ‖f(gx) - g f(x)‖ / (‖f(gx)‖ + ‖g f(x)‖), between 0 and 1; f maps (n, 2k) to (n, 2)."""
    before, after = function(points) @ matrix.T, function(moved(points, matrix))
    total = before.norm(dim=1) + after.norm(dim=1)
    return float(((before - after).norm(dim=1) / total.clamp(min=1e-12)).mean())


class MixedSymmetry(Numerical):
    """n rows of `points` Gaussian points x_i in the plane, drawn from the run's seed, with
    y = v + twist · (v turned by 90 degrees), v = Σ_i ‖x_i‖ x_i. twist: 0 keeps mirror symmetry, too. noise: deviation
    of that on the y to learn from.

    A solution is a function from (n, 2·points) to (n, 2). Metrics on 1000 rows each without noise: validation_mse,
    test_mse; turn_error and mirror_error, how far it is from commuting with either, see `equivariance_error`.
    """

    provides = ("planar_points",)
    headings = {
        "validation_mse": "validation\nMSE",
        "test_mse": "test\nMSE",
        "turn_error": "turning\nerror",
        "mirror_error": "mirroring\nerror",
    }
    better = {"test_mse": "lower", "validation_mse": "lower"}

    def __init__(self, n: Count = 300, points: Count = 3, twist: NonNegative = 0.5, noise: NonNegative = 0.0) -> None:
        super().__init__()
        self.n, self.points, self.twist, self.noise = n, points, twist, noise

    def read(self, seed: int) -> Mapping[str, Tensor]:
        draws = generator("mixed_symmetry", seed)
        found = {}
        for part, number in (("train", self.n), ("validation", HELD_OUT), ("test", HELD_OUT)):
            points = torch.randn(number, 2 * self.points, generator=draws)
            each = points.unflatten(1, (-1, 2))
            vector = (each.norm(dim=2, keepdim=True) * each).sum(1)
            noise = self.noise * torch.randn(number, 2, generator=draws)
            targets = vector + self.twist * vector @ TURN.T
            found |= {f"{part}.inputs": points, f"{part}.targets": targets + noise if part == "train" else targets}
        return found

    def evaluate(self, solution: Callable[[Tensor], Tensor]) -> dict[str, float]:
        errors = {
            f"{part}_mse": float(
                (solution(self.instance[f"{part}.inputs"]) - self.instance[f"{part}.targets"]).square().mean()
            )
            for part in ("validation", "test")
        }
        points = self.instance["test.inputs"]
        return errors | {
            "turn_error": equivariance_error(solution, points, TURN),
            "mirror_error": equivariance_error(solution, points, MIRROR),
        }

    def about(self) -> dict[str, Any]:
        variance = float(self.instance["test.targets"].square().mean())
        return {"n": self.n, "twist": self.twist, "mse_of_zero": variance}
