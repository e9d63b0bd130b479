"""What all methods of this wing share: the state between two steps, and the draws behind a gradient.

The schedules and the setting are those of Fatkhullin et al., ICML 2023, arXiv 2302.01734, and of the authors' code.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fisherexp.data.environments.environment import Environment
from fisherexp.data.environments.episodes import Episodes, rollout
from fisherexp.methods.policy_gradient.estimators import hessian_product, policy_gradient, rewards_to_go

# An estimate of ∇J at a point (P,), from episodes drawn there, and one of ∇²J v at a point for a vector.
Gradient = Callable[[Tensor], Tensor]
Product = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Ascent:
    """Where an ascent stands: θ_t and θ_{t-1} (P,), the direction d_{t-1} (P,), t, and how many batches of episodes it
    drew. Together with the generator's state that is all it needs to go on bit for bit."""

    theta: Tensor
    previous: Tensor
    direction: Tensor
    iteration: int = 0
    batches: int = 0

    @classmethod
    def start(cls, theta: Tensor) -> "Ascent":
        return cls(theta, theta, torch.zeros_like(theta))

    def moved(self, direction: Tensor, step: Tensor, batches: int) -> "Ascent":
        """After d_t, θ_{t+1} = θ_t + step, and that many batches more."""
        return Ascent(self.theta + step, self.theta, direction, self.iteration + 1, self.batches + batches)

    def state_dict(self) -> dict[str, Tensor]:
        """As tensors only; `Ascent.load` makes it again."""
        counts = torch.tensor([self.iteration, self.batches])
        return {"theta": self.theta, "previous": self.previous, "direction": self.direction, "counts": counts}

    @classmethod
    def load(cls, state: dict[str, Tensor]) -> "Ascent":
        return cls(state["theta"], state["previous"], state["direction"], *state["counts"].tolist())


def decay(iteration: int, power: float) -> float:
    """(2 / (t + 2))^power: 1 at t = 0."""
    return (2 / (iteration + 2)) ** power


def normalized(direction: Tensor) -> Tensor:
    """d / ‖d‖, and zero for zero: where nothing was learned no step is taken."""
    norm = torch.linalg.vector_norm(direction)
    return direction / norm if norm > 0 else torch.zeros_like(direction)


@dataclass(frozen=True)
class Sampled:
    """Estimates from fresh episodes of an environment: `gradient` and `product` are what the steps ask for.

    episodes: B, behind each gradient. hessian_episodes: the same for a Hessian-vector product.
    generator: of every draw; its state moves on. returns: of the episodes behind each gradient so far, their mean.
    """

    environment: Environment
    policy: nn.Module
    generator: torch.Generator
    episodes: int = 1
    hessian_episodes: int = 1
    returns: list[float] = field(default_factory=list)

    def gradient(self, theta: Tensor) -> Tensor:
        drawn, to_go = self._drawn(theta, self.episodes)
        self.returns.append(to_go[:, 0].mean().item())
        return policy_gradient(self.policy, theta, drawn, to_go)

    def product(self, theta: Tensor, vector: Tensor) -> Tensor:
        drawn, to_go = self._drawn(theta, self.hessian_episodes)
        return hessian_product(self.policy, theta, vector, drawn, to_go)

    def uniform(self) -> float:
        """q in [0, 1)."""
        return torch.rand((), dtype=torch.float64, generator=self.generator).item()

    def _drawn(self, theta: Tensor, episodes: int) -> tuple[Episodes, Tensor]:
        drawn = rollout(self.environment, self.policy, theta, episodes, self.generator)
        return drawn, rewards_to_go(drawn.rewards, self.environment.discount)
