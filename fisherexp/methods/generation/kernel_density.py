"""The score of a kernel density estimate: what needs no training, to compare a learned score with.

    p(x) = mean_i N(x | x_i, h² I),    ∇log p(x) = Σ_i w_i(x) (x_i - x) / h²,    w_i ∝ exp(-‖x - x_i‖² / 2h²)

Silverman 1986; his rule is h = spread · n^(-1/(d+4)), with the root mean variance of a coordinate as the spread. It is
made for one Gaussian, and wide where there are several: of some shares of it, that with the largest likelihood of
points left out one at a time is taken.
"""

import math
from typing import Any

import torch
from torch import Tensor

from fisherexp.config.types import Positive
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.problems.density import Density

BLOCK = 500  # points whose distances are held at a time
SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18)
JUDGED = 1000  # points that are left out one at a time


class KernelEstimate:
    """Of points (n, d) with bandwidth h, as the solution of a problem: see ScoreModel."""

    def __init__(self, points: Tensor, bandwidth: float) -> None:
        self.points, self.bandwidth = points, bandwidth

    def score(self, points: Tensor) -> Tensor:
        found = []
        for block in points.split(BLOCK):
            weights = (-torch.cdist(block, self.points).square() / (2 * self.bandwidth**2)).softmax(1)
            found.append((weights @ self.points - block) / self.bandwidth**2)
        return torch.cat(found)

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """A point with noise of the kernel."""
        chosen = self.points[torch.randint(len(self.points), (number,), generator=generator)]
        return chosen + self.bandwidth * torch.randn(chosen.shape, generator=generator)


def silverman(points: Tensor) -> float:
    """h of points (n, d)."""
    count, size = points.shape
    return float(points.var(0).mean().sqrt()) * count ** (-1 / (size + 4))


def left_out(points: Tensor, bandwidth: float) -> float:
    """Mean log density of the first `JUDGED` points (n, d), each by the kernels of all others."""
    size, total = points.shape[1], 0.0
    few = points[:JUDGED]
    for start in range(0, len(few), BLOCK):
        block = few[start : start + BLOCK]
        logs = -torch.cdist(block, points).square() / (2 * bandwidth**2)
        itself = torch.arange(len(block))
        logs[itself, start + itself] = -torch.inf
        total += float(logs.logsumexp(1).sum())
    return total / len(few) - math.log(len(points) - 1) - size * math.log(bandwidth * math.sqrt(2 * math.pi))


class KernelDensity(IterativeMethod):
    """A step judges a bandwidth. bandwidth: h, in units of the data; null: chosen as above."""

    name = "kernel_density"
    paper = "Silverman 1986, Density Estimation for Statistics and Data Analysis"
    problems = ("numerical",)
    requires = ("density",)

    problem: Density

    def __init__(self, bandwidth: Positive | None = None) -> None:
        super().__init__()
        self.bandwidth = bandwidth

    def begin(self, problem: Density, seed: int) -> None:
        super().begin(problem, seed)
        self.points, rule = problem.instance["train"], silverman(problem.instance["train"])
        self.tried = [share * rule for share in SHARES] if self.bandwidth is None else [self.bandwidth]
        self.likelihoods: list[float] = []

    @property
    def done(self) -> bool:
        return len(self.likelihoods) == len(self.tried)

    def step(self) -> dict[str, float]:
        self.likelihoods.append(left_out(self.points, self.tried[len(self.likelihoods)]))
        return {"log_likelihood": self.likelihoods[-1]}

    def state_dict(self) -> dict[str, Any]:
        return {"likelihoods": self.likelihoods}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.likelihoods = state["likelihoods"]

    @property
    def found(self) -> float:
        """The bandwidth of the largest likelihood."""
        return self.tried[self.likelihoods.index(max(self.likelihoods))]

    def solution(self) -> KernelEstimate:
        return KernelEstimate(self.points, self.found)

    def tensors(self) -> dict[str, Tensor]:
        return {"bandwidth": torch.tensor(self.found)}
