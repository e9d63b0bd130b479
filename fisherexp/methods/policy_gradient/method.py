"""The loop of a run around the steps of this wing: a policy, a budget of episodes, a curve."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters

from fisherexp.config.types import Count, Positive
from fisherexp.data.environments.episodes import flat
from fisherexp.methods.iterative import IterativeMethod
from fisherexp.methods.policy_gradient.ascent import Ascent, Sampled
from fisherexp.problems.environment import EnvironmentProblem
from fisherexp.seeds import generator


class PolicyGradient(IterativeMethod):
    """A subclass says what a step is (`advance`), and how many episodes it draws.

    model: the policy. step_size: γ_0. episodes: B, behind each gradient.
    total_episodes: the budget; no step is begun that would exceed it. All draws of all kinds count.
    The curve is the mean return of the episodes behind each gradient: returns.png and .pdf.
    """

    problems = ("environment",)
    scenarios = ("plain",)
    uses_model = True
    headings = {"episodes": "episodes"}
    better = {"episodes": "lower"}
    search = {"step_size": "tag(log, interval(0.01, 10))"}

    problem: EnvironmentProblem

    def __init__(self, model: nn.Module, step_size: Positive, episodes: Count, total_episodes: Count) -> None:
        super().__init__()
        self.model = model
        self.step_size, self.episodes, self.total_episodes = step_size, episodes, total_episodes

    @abstractmethod
    def advance(self) -> Ascent:
        """The next state, from `self.ascent` and estimates by `self.sampled`."""

    @property
    def hessian_episodes(self) -> int:
        """Drawn by a step beside those of its gradient."""
        return 0

    def begin(self, problem: EnvironmentProblem, seed: int) -> None:
        super().begin(problem, seed)
        if self.episodes > self.total_episodes:
            raise ValueError(
                f"method.total_episodes={self.total_episodes} pays for no step of {self.episodes} episodes"
            )
        draw = generator("episodes", seed)
        self.sampled = Sampled(problem.environment, self.model, draw, self.episodes, self.hessian_episodes)
        self.ascent = Ascent.start(flat(self.model))

    @property
    def drawn(self) -> int:
        """Episodes so far."""
        further = self.ascent.batches - self.ascent.iteration
        return self.ascent.iteration * self.episodes + further * self.hessian_episodes

    @property
    def done(self) -> bool:
        further = self.hessian_episodes if self.ascent.iteration else 0
        return self.drawn + self.episodes + further > self.total_episodes

    def step(self) -> dict[str, float]:
        self.ascent = self.advance()
        return {"return": self.sampled.returns[-1], "episodes": self.drawn}

    def state_dict(self) -> dict[str, Any]:
        return {
            "ascent": self.ascent.state_dict(),
            "generator": self.sampled.generator.get_state(),
            "returns": self.sampled.returns,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ascent = Ascent.load(state["ascent"])
        self.sampled.generator.set_state(state["generator"])
        self.sampled.returns[:] = state["returns"]

    def solution(self) -> nn.Module:
        vector_to_parameters(self.ascent.theta, self.model.parameters())
        return self.model

    def tensors(self) -> dict[str, Tensor]:
        return self.solution().state_dict()

    def metrics(self) -> dict[str, float]:
        return {"episodes": self.drawn}

    def leave_files(self, folder: Path) -> None:
        from fisherexp.methods.policy_gradient.return_figure import draw

        count = torch.arange(1, self.ascent.iteration + 1)
        drawn = count * self.episodes + (count - 1) * self.hessian_episodes
        draw(drawn.tolist(), self.sampled.returns, self.problem.optimal_return, folder / "returns")
