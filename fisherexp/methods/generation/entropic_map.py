"""A bridge's plan from samples alone: entropic optimal transport between two clouds, carried on to new points.

    π_ij = exp(u_i + v_j - |x_i - y_j|²/2ε)                      by the Sinkhorn sweeps of the package POT
    π(y_j | x) ∝ exp(v_j - |x - y_j|²/2ε),    T(x) = Σ_j π(y_j | x) y_j      for any x

Pooladian, Niles-Weed 2021, arXiv 2109.12004; POT: Flamary et al., JMLR 2021. What light_sb is compared with: the plan
is that of the same bridge, but its second marginal are the points it was given, and it holds all of them.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fisherexp.config.types import Count, Positive
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.memory import announce
from fisherexp.problems.unpaired import Unpaired
from fisherexp.seeds import generator

BLOCK = 500  # points that are carried at a time


class DiscreteCoupling:
    """A distribution over points y (m, d) for each x, as the solution of a problem: see Coupling.

    potential: v (m,); None: y is independent of x. mean: carry to the mean, not to a draw.
    """

    def __init__(self, targets: Tensor, potential: Tensor | None, epsilon: float, mean: bool) -> None:
        self.targets, self.potential, self.epsilon, self.mean = targets, potential, epsilon, mean

    def weights(self, points: Tensor) -> Tensor:
        """π(y_j | x): (n, m)."""
        if self.potential is None:
            return torch.full((len(points), len(self.targets)), 1 / len(self.targets), dtype=points.dtype)
        squared = torch.cdist(points.double(), self.targets.double()).square()
        return (self.potential - squared / (2 * self.epsilon)).softmax(1).to(points)

    def sample(self, points: Tensor, generator: torch.Generator) -> Tensor:
        if self.mean:
            return torch.cat([self.weights(block) @ self.targets for block in points.split(BLOCK)])
        places = [torch.multinomial(self.weights(block), 1, generator=generator)[:, 0] for block in points.split(BLOCK)]
        return self.targets[torch.cat(places)]

    def moments(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Of the plan, also where points are carried to its mean."""
        means, covariances = [], []
        for block in points.split(BLOCK):
            weights = self.weights(block)
            means.append(weights @ self.targets)
            away = self.targets - means[-1][:, None]
            covariances.append(torch.einsum("nm,nmd,nme->nde", weights, away, away))
        return torch.cat(means), torch.cat(covariances)


class EntropicMap(IterativeMethod):
    """A step is a call of POT, of `sweeps_per_step` sweeps that go on where the last call ended.

    carried: to a draw of the plan; to its mean (the barycentric map), which is not distributed as p₁; or independent,
    to any of the y whatever x is. points: of either cloud, at most; the costs of all pairs are held. tolerance: of the
    second marginal, ℓ1; max_iterations: sweeps. bridge.png and .pdf show points and where they are carried.
    """

    name = "entropic_map"
    paper = "Pooladian, Niles-Weed 2021, arXiv 2109.12004; POT: Flamary et al., JMLR 2021"
    problems = ("numerical",)
    requires = ("unpaired",)
    counts_with = {"sweeps_per_step": {"tolerance": 0.1}}  # which is asked behind a step
    headings = {"marginal_error": "marginal\nerror"}
    better = {"marginal_error": "lower"}

    problem: Unpaired

    def __init__(
        self,
        carried: Literal["draw", "mean", "independent"] = "draw",
        points: Count = 500,
        sweeps_per_step: Count = 10,
        tolerance: Positive = 1e-4,
        max_iterations: Count = 500,
    ) -> None:
        super().__init__()
        self.carried, self.points = carried, points
        self.sweeps_per_step, self.tolerance, self.max_iterations = sweeps_per_step, tolerance, max_iterations

    def begin(self, problem: Unpaired, seed: int) -> None:
        super().begin(problem, seed)
        self.library, draws = pot(), generator("entropic_map", seed)
        clouds = (problem.instance[side] for side in ("source", "target"))
        self.source, self.target = (
            points[torch.randperm(len(points), generator=draws)[: self.points]].double() for points in clouds
        )
        announce("costs of pairs", len(self.source), len(self.target), copies=3, advice="lower method.points")
        self.cost = (torch.cdist(self.source, self.target).square() / 2).numpy()
        self.left, self.right = (np.zeros(size) for size in self.cost.shape)
        self.sweeps, self.error = 0, float("inf")

    @property
    def done(self) -> bool:
        return self.error <= self.tolerance or self.sweeps >= self.max_iterations

    def step(self) -> dict[str, float]:
        rows, columns = (np.full(size, 1 / size) for size in self.cost.shape)
        if self.carried == "independent":
            self.error = 0.0
            return {"marginal_error": self.error}
        count = min(self.sweeps_per_step, self.max_iterations - self.sweeps)
        plan, log = self.library.bregman.sinkhorn_log(
            *(rows, columns, self.cost, self.problem.epsilon),
            numItermax=count,
            stopThr=0,
            log=True,
            warn=False,
            warmstart=(self.left, self.right),
        )
        self.left, self.right = log["log_u"], log["log_v"]
        self.sweeps += count
        self.error = float(np.abs(plan.sum(0) - columns).sum())
        return {"marginal_error": self.error}

    def state_dict(self) -> dict[str, Any]:
        potentials = {name: torch.from_numpy(getattr(self, name)) for name in ("left", "right")}
        return potentials | {"sweeps": self.sweeps, "error": self.error}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.left, self.right = state["left"].numpy(), state["right"].numpy()
        self.sweeps, self.error = state["sweeps"], state["error"]

    def solution(self) -> DiscreteCoupling:
        potential = None if self.carried == "independent" else torch.from_numpy(self.right)
        return DiscreteCoupling(self.target.float(), potential, self.problem.epsilon, self.carried == "mean")

    def metrics(self) -> dict[str, float]:
        return {"marginal_error": self.error}

    def tensors(self) -> dict[str, Tensor]:
        return {"targets": self.target.float(), "potential": torch.from_numpy(self.right)}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.generation.bridge_figure import PATHS, POINTS, draw

        source, target = (self.problem.instance[f"{side}_test"][:POINTS] for side in ("source", "target"))
        mapped = self.solution().sample(source, generator("bridge_figure", "paths"))
        draw(source, target, mapped, torch.stack([source[:PATHS], mapped[:PATHS]]), folder / "bridge")


def pot() -> Any:
    """The package. Raises ModuleNotFoundError, in one line, where it is not installed."""
    try:
        import ot
    except ImportError:
        raise ModuleNotFoundError("method=entropic_map needs POT: pip install 'fisherexp[ot]'") from None
    return ot
