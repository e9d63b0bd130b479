"""Sparse regression, linear or logistic, with SCAD, MCP or the lasso. Equations: sparse_fit.py, nonconvex_penalties.py.

The package's README has logistic regressions with SCAD and MCP in 20 minutes on an A100 where coordinate descent was
unfinished after seven days; its sizes are not ours, and no figure of theirs stands beside it.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fisherexp.config.types import Count, Positive
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.memory import announce
from fisherexp.methods.statistics.sparse_fit import SparseFit, State, advanced, beginning, largest_strength
from fisherexp.problems.sparse_regression import Columns, Regression, standardized


class NonconvexRegression(IterativeMethod):
    """A step is an iteration, from zero, on standardized columns.

    loss: squared, of centered outcomes; logistic, of outcomes 0 and 1, with an intercept. penalty: scad, mcp or lasso.
    strength: λ, as a share of the least at which nothing is left. shape: a of SCAD, γ of MCP. solver: accelerated
    gradients, plain proximal ones, or conjugate ones. tolerance: of the stationarity, in units of that largest λ;
    max_iterations: when to stop at last. objective.png and .pdf show the course and the coefficients.
    """

    name = "nonconvex_regression"
    paper = "Yang, McGill 2025; Ghadimi, Lan, Math. Program. 2016, arXiv 1310.3787"
    problems = ("numerical",)
    requires = ("columns",)
    headings = {"iterations": "iterations", "reached": "reached\ntolerance"}
    better = {"iterations": "lower", "reached": "higher"}
    counts_with = {"loss": {"/data.outcomes": "binary"}}

    problem: Regression

    def __init__(
        self,
        penalty: Literal["scad", "mcp", "lasso"] = "scad",
        strength: Positive = 0.15,
        shape: Positive = 3.7,
        solver: Literal["accelerated", "proximal", "conjugate"] = "accelerated",
        tolerance: Positive = 1e-6,
        max_iterations: Count = 2000,
        loss: Literal["squared", "logistic"] = "squared",
    ) -> None:
        super().__init__()
        self.penalty, self.strength, self.shape = penalty, strength, shape
        self.solver, self.tolerance, self.max_iterations, self.loss = solver, tolerance, max_iterations, loss

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
        strength, start = torch.full_like(self.middle, self.strength * self.top), torch.zeros_like(self.middle)
        if self.loss == "logistic":
            _require_binary(outcomes)
            self.outcomes, self.inputs = outcomes, torch.cat([self.inputs, torch.ones_like(self.inputs[:, :1])], 1)
            odds = torch.tensor([self.mean], dtype=raw.dtype).logit()
            strength, start = torch.cat([strength, torch.zeros_like(odds)]), torch.cat([start, odds])
        self.fit = SparseFit(self.inputs, self.outcomes, strength, self.shape, self.penalty, self.loss)
        self.bound = self.fit.lipschitz()
        self.state, self.curve = beginning(start), []

    @property
    def done(self) -> bool:
        return self.state.residual <= self.tolerance * self.top or len(self.curve) >= self.max_iterations

    def step(self) -> dict[str, float]:
        self.state = advanced(self.state, self.fit, self.bound, self.solver)
        self.curve.append(self.fit.objective(self.state.aggregated))
        return {"objective": self.curve[-1], **self.problem.evaluate(self.solution())}

    def state_dict(self) -> dict[str, Any]:
        return {**self.state._asdict(), "curve": self.curve}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = State(**{name: state[name] for name in State._fields})
        self.curve = state["curve"]

    def solution(self) -> Columns:
        """In the units of the data."""
        scores = self.state.aggregated[: len(self.spread)]
        intercept = float(self.state.aggregated[-1]) if self.loss == "logistic" else self.mean
        found = scores / self.spread
        return Columns(scores, found, intercept - float(self.middle @ found), self.loss)

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


def _require_binary(outcomes: Tensor) -> None:
    values = outcomes.unique()
    if values.tolist() != [0, 1]:
        said = f"method.loss=logistic: outcomes 0 and 1 are expected, these have {len(values)} values"
        raise ValueError(f"{said} from {float(values[0]):g} to {float(values[-1]):g}; loss=squared takes any")
