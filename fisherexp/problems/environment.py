"""Episodes to earn a return in: an environment, policies for it, and what a policy is worth there."""

import hashlib
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, NonNegative, Positive, Probability
from fisherexp.data.environments import finite, linear_quadratic
from fisherexp.data.environments.chain import chain
from fisherexp.data.environments.environment import Environment
from fisherexp.data.environments.episodes import flat, returns, rollout
from fisherexp.data.environments.gymnasium_episodes import GymnasiumEpisodes
from fisherexp.models.policies import GaussianNetworkPolicy, SoftmaxPolicy, Spaces
from fisherexp.problems.problem import Problem
from fisherexp.seeds import generator


class EnvironmentProblem(Problem):
    """A subclass makes the environment (`make`), and knows exact returns where there are any.

    eval_episodes: behind an estimated return.

    return: the discounted one; exact where the policy's is known in closed form, else the mean of episodes on random
    streams that no method draws from. standard_error: of that mean; of an exact return there is none.
    gap: the optimal return less that one, where the optimum is known.
    """

    kind = "environment"
    problems = ("environment",)
    headings = {"return": "return", "standard_error": "standard\nerror", "gap": "gap to the\noptimum"}
    better = {"return": "higher", "gap": "lower"}

    environment: Environment
    spaces: Spaces
    optimal_return: float | None = None

    def __init__(self, eval_episodes: Count) -> None:
        self.eval_episodes = eval_episodes

    @abstractmethod
    def make(self) -> None:
        """Set `environment`, `spaces` and, where it is known, `optimal_return`."""

    def load(self, seed: int) -> "EnvironmentProblem":
        self.seed = seed
        self.make()
        return self

    def build_model(self) -> nn.Module:
        """A new policy, its weights drawn from torch's global generator."""
        return self.backbone(spaces=self.spaces)

    def exact_return(self, policy: nn.Module) -> Tensor | None:
        """The expected return of a policy in closed form, differentiable; None where there is none."""
        return None

    @torch.no_grad()
    def evaluate(self, solution: nn.Module) -> dict[str, float]:
        exact = self.exact_return(solution)
        if exact is not None:
            found = {"return": exact.item()}
        else:
            draw = generator("evaluation", self.seed)
            episodes = rollout(self.environment, solution, flat(solution), self.eval_episodes, draw)
            each = returns(episodes.rewards, self.environment.discount)
            found = {"return": each.mean().item(), "standard_error": (each.std() / len(each) ** 0.5).item()}
        if self.optimal_return is not None:
            found["gap"] = self.optimal_return - found["return"]
        return found

    def checksum(self) -> str:
        digest = hashlib.blake2b(digest_size=8)
        for name, value in self.content().items():
            digest.update(f"{name}{value.tolist() if isinstance(value, Tensor) else value}".encode())
        return digest.hexdigest()

    def content(self) -> dict[str, Any]:
        """Everything that makes the environment what it is, by name: tensors, numbers and strings."""
        return vars(self.environment)


class Chain(EnvironmentProblem):
    """data/environments/chain.py. A policy's return is exact, by dynamic programming."""

    provides = ("states",)

    def __init__(
        self, length: Count, slip: Probability, near: float, far: float, horizon: Count, discount: Probability
    ) -> None:
        super().__init__(eval_episodes=1)  # it needs none
        self.options = {"length": length, "slip": slip, "near": near, "far": far}
        self.options |= {"horizon": horizon, "discount": discount}

    def make(self) -> None:
        self.environment = chain(**self.options)
        self.spaces = Spaces(self.environment.num_actions, discrete=True, states=self.environment.num_states)
        self.optimal_return = finite.optimal_return(self.environment)

    def exact_return(self, policy: SoftmaxPolicy) -> Tensor:
        return finite.expected_return(self.environment, policy(torch.arange(self.spaces.states)).exp())


class DoubleIntegrator(EnvironmentProblem):
    """A cart on a line, pushed to the origin: s = (place, speed), starting at rest in place 1 on average.

    dt: seconds of a step. push_cost: R; Q is the identity. noise, start_noise, horizon, discount: see LinearQuadratic.
    The return of a linear policy is exact.
    """

    name = "linear_quadratic"
    provides = ("vectors",)

    def __init__(
        self,
        dt: Positive,
        push_cost: NonNegative,
        noise: NonNegative,
        start_noise: NonNegative,
        horizon: Count,
        discount: Probability,
        eval_episodes: Count,
    ) -> None:
        super().__init__(eval_episodes)
        self.dt, self.push_cost, self.noise, self.start_noise = dt, push_cost, noise, start_noise
        self.horizon, self.discount = horizon, discount

    def make(self) -> None:
        identity = torch.eye(2, dtype=torch.float64)
        self.environment = linear_quadratic.LinearQuadratic(
            A=identity + self.dt * identity.roll(1, 1).triu(),
            B=self.dt * identity[:, 1:],
            Q=identity,
            R=self.push_cost * identity[:1, :1],
            start=identity[0],
            horizon=self.horizon,
            discount=self.discount,
            noise=self.noise,
            start_noise=self.start_noise,
        )
        self.spaces = Spaces(actions=1, discrete=False, observation_size=2)
        self.optimal_return = linear_quadratic.optimal_return(self.environment)

    def exact_return(self, policy: nn.Module) -> Tensor | None:
        gain = policy.gain if isinstance(policy, GaussianNetworkPolicy) else None
        return None if gain is None else linear_quadratic.expected_return(self.environment, gain, policy.log_std.exp())


class Gymnasium(EnvironmentProblem):
    """name, horizon, discount, options: see GymnasiumEpisodes."""

    named_by = "name"
    provides = ("vectors",)

    def __init__(
        self, name: str, horizon: Count, discount: Probability, options: dict[str, Any], eval_episodes: Count
    ) -> None:
        super().__init__(eval_episodes)
        self.name, self.horizon, self.discount, self.options = name, horizon, discount, options

    def make(self) -> None:
        made = GymnasiumEpisodes(self.name, self.horizon, self.discount, **self.options)
        self.environment = made
        self.spaces = Spaces(
            made.action_size, made.discrete, observation_size=made.observation_size, dtype=torch.float32
        )

    def content(self) -> dict[str, Any]:
        from gymnasium import __version__

        named = {"name": self.name, "horizon": self.horizon, "discount": self.discount, "options": self.options}
        return named | {"gymnasium": __version__}
