"""Sparse linear regression with SCAD, MCP or the lasso, by accelerated gradients. Equations: nonconvex_penalties.py.

The package's README has logistic regressions with SCAD and MCP in 20 minutes on an A100 where coordinate descent was
unfinished after seven days; ours is linear regression, and no figure of theirs stands beside it.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.config.types import Count, Positive
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.memory import announce
from fisherexp.methods.statistics.nonconvex_penalties import (
    State,
    advanced,
    largest_strength,
    lipschitz,
    value,
)
from fisherexp.problems.sparse_regression import Columns, Regression, standardized


class NonconvexRegression(IterativeMethod):
    """A step is an iteration, from zero, on standardized columns and centered outcomes.

    penalty: scad, mcp or lasso. strength: λ, as a share of the least at which nothing is left. shape: a of SCAD, γ of
    MCP. accelerated: false is the plain proximal gradient. tolerance: of the stationarity, in units of that largest λ;
    max_iterations: when to stop at last. objective.png and .pdf show the course and the coefficients.
    """

    name = "nonconvex_regression"
    paper = "Yang, McGill 2025; Ghadimi, Lan, Math. Program. 2016, arXiv 1310.3787"
    problems = ("numerical",)
    requires = ("columns",)
    headings = {"iterations": "iterations", "reached": "reached\ntolerance"}
    better = {"iterations": "lower", "reached": "higher"}

    problem: Regression

    def __init__(
        self,
        penalty: Literal["scad", "mcp", "lasso"] = "scad",
        strength: Positive = 0.15,
        shape: Positive = 3.7,
        accelerated: bool = True,
        tolerance: Positive = 1e-6,
        max_iterations: Count = 2000,
    ) -> None:
        super().__init__()
        self.penalty, self.strength, self.shape = penalty, strength, shape
        self.accelerated, self.tolerance, self.max_iterations = accelerated, tolerance, max_iterations

    def begin(self, problem: Regression, seed: int) -> None:
        super().begin(problem, seed)
        least = {"scad": 2.0, "mcp": 1.0, "lasso": 0.0}[self.penalty]
        if self.shape <= least:
            raise ValueError(f"method.shape={self.shape}: more than {least:g} is expected with {self.penalty}")
        raw, outcomes = problem.instance["inputs"], problem.instance["outcomes"]
        side = min(raw.shape)
        announce("the Gram matrix", side, side, copies=2, advice="leave out rows or columns")
        self.inputs, self.middle, self.spread = standardized(raw)
        self.mean, self.outcomes = float(outcomes.mean()), outcomes - outcomes.mean()
        self.top = largest_strength(self.inputs, self.outcomes)
        if not self.top:
            raise ValueError("the outcomes have nothing to do with any column: their covariances are zero")
        self.bound = lipschitz(self.inputs, self.shape, self.penalty)
        start = self.inputs.new_zeros(raw.shape[1])
        self.state, self.curve = State(start, start), []

    @property
    def done(self) -> bool:
        return self.state.residual <= self.tolerance * self.top or len(self.curve) >= self.max_iterations

    def step(self) -> dict[str, float]:
        data = (self.inputs, self.outcomes, self.strength * self.top, self.shape, self.penalty)
        self.state = advanced(self.state, *data, self.bound, self.accelerated)
        self.curve.append(self._objective())
        return {"objective": self.curve[-1], **self.problem.evaluate(self.solution())}

    def _objective(self) -> float:
        left = self.outcomes - self.inputs @ self.state.aggregated
        shape = (self.strength * self.top, self.shape, self.penalty)
        return float(left.square().mean() / 2 + value(self.state.aggregated, *shape))

    def state_dict(self) -> dict[str, Any]:
        return {**self.state._asdict(), "curve": self.curve}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = State(**{name: state[name] for name in State._fields})
        self.curve = state["curve"]

    def solution(self) -> Columns:
        """In the units of the data."""
        found = self.state.aggregated / self.spread
        return Columns(self.state.aggregated, found, self.mean - float(self.middle @ found))

    def metrics(self) -> dict[str, float]:
        reached = self.state.residual <= self.tolerance * self.top
        return {"reached": int(reached)} | ({"iterations": len(self.curve)} if reached else {})

    def tensors(self) -> dict[str, Tensor]:
        found = self.solution()
        return {"coefficients": found.coefficients, "intercept": torch.tensor(found.intercept)}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.statistics.column_figure import draw_fit

        truth = self.problem.instance.get("coefficients")
        draw_fit(self.curve, self.solution().coefficients, truth, folder / "objective")
