"""Bilevel problems: hyperparameters θ that minimize g(x̂(θ)) with x̂(θ) = argmin h(x, θ), h strongly convex in x.

A solver may know the constants that bound the error of an inexact hypergradient (see Constants).
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fisherexp.config.types import Count
from fisherexp.problems.numerical import Numerical
from fisherexp.seeds import generator

EXACT = 1e-9  # distance to x̂ at which an evaluation solves the lower level
MOST = 200_000  # iterations of one solution of it


class Constants(NamedTuple):
    """Bounds at one θ, and of the Jacobian at one x.

    mu, smoothness: of h in x. jacobian: ‖∂²h/∂x∂θ‖ at x. jacobian_slope, inverse_slope: Lipschitz constants in x of
    that matrix and of the inverse of ∂²h/∂x². reach: the distance from x within which they hold.
    """

    mu: float
    smoothness: float
    jacobian: float
    jacobian_slope: float
    inverse_slope: float
    reach: float = math.inf


class Lower(NamedTuple):
    """x, within `accuracy` of x̂ because ‖∇h(x)‖ ≤ μ accuracy, after so many iterations."""

    x: Tensor
    iterations: int


def solve_lower(
    gradient: Callable[[Tensor], Tensor], start: Tensor, mu: float, smoothness: float, accuracy: float
) -> Lower:
    """Nesterov's method with the constant momentum of strongly convex functions (Nesterov 2004, 2.2.11), from `start`.

    gradient: of h in x. Stops where ‖∇h‖ ≤ mu · accuracy, so that the distance to x̂ is at most `accuracy`.

    Raises ArithmeticError, in one line, where rounding or wrong constants keep it from that.
    """
    momentum = (math.sqrt(smoothness) - math.sqrt(mu)) / (math.sqrt(smoothness) + math.sqrt(mu))
    x, ahead = start, start
    for iteration in range(MOST):
        slope = gradient(ahead)
        if float(slope.norm()) <= mu * accuracy:
            return Lower(ahead, iteration + 1)
        previous, x = x, ahead - slope / smoothness
        ahead = x + momentum * (x - previous)
    raise ArithmeticError(f"the lower level is not solved to {accuracy:.1e} after {MOST} iterations")


class Bilevel(Numerical):
    """A subclass draws the instance (`read`), and has the two objectives and their constants. A solution is θ.

    upper_loss: g at x̂(θ), solved to 1e-9. start_loss: the same at the first θ.
    """

    provides = ("bilevel",)
    headings = {"upper_loss": "upper\nloss", "start_loss": "at the\nstart"}
    better = {"upper_loss": "lower"}

    @abstractmethod
    def upper(self, x: Tensor) -> Tensor:
        """g(x)."""

    @abstractmethod
    def lower(self, x: Tensor, theta: Tensor) -> Tensor:
        """h(x, θ)."""

    @property
    @abstractmethod
    def upper_smoothness(self) -> float:
        """Lipschitz constant of ∇g."""

    @abstractmethod
    def constants(self, x: Tensor, theta: Tensor) -> Constants:
        """Valid bounds, not estimates."""

    @property
    @abstractmethod
    def start(self) -> tuple[Tensor, Tensor]:
        """The first x and θ."""

    def lower_gradient(self, x: Tensor, theta: Tensor) -> Tensor:
        """∇_x h."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.lower(x, theta), x)[0]

    def solved(self, theta: Tensor, start: Tensor, accuracy: float) -> Lower:
        """The lower level at θ, to `accuracy`, from `start`."""
        known = self.constants(start, theta)
        return solve_lower(lambda x: self.lower_gradient(x, theta), start, known.mu, known.smoothness, accuracy)

    def evaluate(self, solution: Tensor) -> dict[str, float]:
        x, theta = self.start
        losses = [float(self.upper(self.solved(some, x, EXACT).x)) for some in (solution, theta)]
        return {"upper_loss": losses[0], "start_loss": losses[1]}


class BilevelQuadratic(Bilevel):
    """g(x) = ½ ‖A₁ x - b₁‖² / n and h(x, θ) = ½ ‖A₂ x + A₃ θ - b₂‖² / n, with entries uniform in [0, 1], drawn from
    the run's seed; x and θ have m entries. The best θ is known.

    gap: upper loss less the least one.
    """

    name = "bilevel_quadratic"
    headings = {"upper_loss": "upper\nloss", "start_loss": "at the\nstart", "gap": "gap"}
    better = {"upper_loss": "lower", "gap": "lower"}

    def __init__(self, n: Count = 1000, m: Count = 10) -> None:
        super().__init__()
        if m > n:
            raise ValueError(f"data.m={m}: at most data.n={n}, or the lower level is not strongly convex")
        self.n, self.m = n, m

    def read(self, seed: int) -> Mapping[str, Tensor]:
        draw = generator("bilevel_quadratic", seed)
        shapes = {
            "A1": (self.n, self.m),
            "A2": (self.n, self.m),
            "A3": (self.n, self.m),
            "b1": (self.n,),
            "b2": (self.n,),
        }
        return {name: torch.rand(*shape, generator=draw, dtype=torch.float64) for name, shape in shapes.items()}

    def upper(self, x: Tensor) -> Tensor:
        return (self.instance["A1"] @ x - self.instance["b1"]).square().sum() / (2 * self.n)

    def lower(self, x: Tensor, theta: Tensor) -> Tensor:
        return (self.instance["A2"] @ x + self.instance["A3"] @ theta - self.instance["b2"]).square().sum() / (
            2 * self.n
        )

    @property
    def upper_smoothness(self) -> float:
        return float(torch.linalg.matrix_norm(self.instance["A1"], 2)) ** 2 / self.n

    def constants(self, x: Tensor, theta: Tensor) -> Constants:
        singular = torch.linalg.svdvals(self.instance["A2"]).square() / self.n
        jacobian = torch.linalg.matrix_norm(self.instance["A2"].T @ self.instance["A3"], 2) / self.n
        return Constants(float(singular[-1]), float(singular[0]), float(jacobian), 0.0, 0.0)

    @property
    def start(self) -> tuple[Tensor, Tensor]:
        return torch.zeros(self.m, dtype=torch.float64), torch.ones(self.m, dtype=torch.float64)

    def solution_of_lower(self, theta: Tensor) -> Tensor:
        """x̂(θ)."""
        return torch.linalg.lstsq(self.instance["A2"], self.instance["b2"] - self.instance["A3"] @ theta).solution

    def evaluate(self, solution: Tensor) -> dict[str, float]:
        # A₂ᵀA₃ is invertible, so that θ can make x̂ any x: the least loss is that of least squares in x.
        best = torch.linalg.lstsq(self.instance["A1"], self.instance["b1"]).solution
        found = super().evaluate(solution)
        return {**found, "gap": found["upper_loss"] - float(self.upper(best))}

    def about(self) -> dict[str, Any]:
        return {"n": self.n, "m": self.m}
