"""Finitely many states and actions, finitely many steps: the exact return of any policy by dynamic programming."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FiniteEnvironment:
    """A Markov decision process in tables. Observations are state numbers, int64.

    start: (S,) probabilities of the first state. transitions: (S, A, S), from state s by action a to state s'.
    rewards: (S, A, S), what that move pays. horizon: H. discount: γ.
    Raises ValueError for shapes that do not fit and for rows that are no distributions.
    """

    start: Tensor
    transitions: Tensor
    rewards: Tensor
    horizon: int
    discount: float

    def __post_init__(self) -> None:
        states, actions = self.transitions.shape[:2]
        expected = {"start": (states,), "transitions": (states, actions, states), "rewards": (states, actions, states)}
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"{name} has shape {tuple(getattr(self, name).shape)}, expected {shape}")
        for name in ("start", "transitions"):
            table = getattr(self, name)
            if (table < 0).any() or not torch.allclose(table.sum(-1), torch.ones_like(table.sum(-1))):
                raise ValueError(f"{name} must hold distributions: entries ≥ 0 that sum to 1 over the last axis")

    @property
    def num_states(self) -> int:
        return self.transitions.shape[0]

    @property
    def num_actions(self) -> int:
        return self.transitions.shape[1]

    def reset(self, episodes: int, generator: torch.Generator) -> Tensor:
        return torch.multinomial(self.start, episodes, replacement=True, generator=generator)

    def step(self, observations: Tensor, actions: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        reached = torch.multinomial(self.transitions[observations, actions], 1, generator=generator)[:, 0]
        ended = torch.zeros(len(reached), dtype=torch.bool)
        return reached, self.rewards[observations, actions, reached], ended


def expected_return(environment: FiniteEnvironment, probabilities: Tensor) -> Tensor:
    """J = E[Σ_h γ^h r_h] of the policy π(a | s) = probabilities (S, A); autograd gives its exact gradient."""
    values = torch.zeros(environment.num_states, dtype=probabilities.dtype)
    for _ in range(environment.horizon):
        values = (probabilities * _action_values(environment, values)).sum(1)
    return environment.start.to(values) @ values


def optimal_return(environment: FiniteEnvironment) -> float:
    """The largest J of all policies, those included that look at the step as well as at the state."""
    values = torch.zeros(environment.num_states, dtype=environment.rewards.dtype)
    for _ in range(environment.horizon):
        values = _action_values(environment, values).max(1).values
    return (environment.start @ values).item()


def _action_values(environment: FiniteEnvironment, values: Tensor) -> Tensor:
    following = environment.rewards + environment.discount * values
    return (environment.transitions * following).sum(2)
