"""What methods for bilevel problems share: where they stand, what they have spent, and their curve."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fisherexp.config.types import Count, Positive
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.numerics.hypergradient import Hypergradient, hypergradient
from fisherexp.problems.bilevel import Bilevel


class BilevelDescent(IterativeMethod):
    """Spends up to `max_cost` iterations of the lower level and products of its linear solver, together.

    A subclass makes a step on θ. epsilon: accuracy of the lower level to begin with, as a distance; delta: residual of
    the linear system. convergence.png and .pdf show the upper loss over the cost.

    cost: what was spent. accepted: steps taken. stopped, in the outcome, says why there were no more.
    """

    problems = ("numerical",)
    requires = ("bilevel",)
    headings = {"cost": "cost", "accepted": "steps"}

    problem: Bilevel

    def __init__(
        self, epsilon: Positive = 0.1, delta: Positive = 0.1, step_size: Positive = 1.0, max_cost: Count = 1000
    ):
        super().__init__()
        self.first = {"epsilon": epsilon, "delta": delta, "step_size": step_size}
        self.max_cost = max_cost

    def begin(self, problem: Bilevel, seed: int) -> None:
        super().begin(problem, seed)
        self.x, self.theta = problem.start
        self.q = torch.zeros_like(self.x)
        self.epsilon, self.delta, self.step_size = (float(value) for value in self.first.values())
        self.cost, self.accepted, self.stopped = 0, 0, ""
        self.curve: list[list[float]] = []
        # A reference that is no lower-level solution could be better than any, and no step would be accepted.
        self.x = self.lower_level(self.theta)
        self.note()

    @property
    def done(self) -> bool:
        return bool(self.stopped)

    def lower_level(self, theta: Tensor) -> Tensor:
        """x within epsilon of x̂(θ), from where x is."""
        found = self.problem.solved(theta, self.x, self.epsilon)
        self.cost += found.iterations
        return found.x

    def gradient(self) -> Hypergradient:
        """At the current x and θ."""
        found, self.q = hypergradient(self.problem, self.x, self.theta, self.epsilon, self.delta, self.q)
        self.cost += found.products
        return found

    def note(self) -> None:
        """A point of the curve; called after each step."""
        self.curve.append([self.cost, float(self.problem.upper(self.x))])
        if not self.stopped and self.cost >= self.max_cost:
            self.stopped = "max_cost"
        self.outcome = {"stopped": self.stopped, "epsilon": self.epsilon, "delta": self.delta}

    def figures(self) -> dict[str, float]:
        """Of the step just noted."""
        named = {"epsilon": self.epsilon, "delta": self.delta, "step_size": self.step_size}
        return {"upper": self.curve[-1][1], "cost": self.cost, **named}

    def state_dict(self) -> dict[str, Any]:
        names = ("x", "theta", "q", "epsilon", "delta", "step_size", "cost", "accepted", "stopped", "curve", "outcome")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def solution(self) -> Tensor:
        return self.theta

    def tensors(self) -> dict[str, Tensor]:
        return {"theta": self.theta, "x": self.x}

    def metrics(self) -> dict[str, float]:
        return {"cost": self.cost, "accepted": self.accepted}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.numerics.bilevel_figure import draw

        draw(self.curve, folder / "convergence")
