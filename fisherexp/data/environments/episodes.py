"""Whole episodes under a policy, all of a batch at once."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fisherexp.data.environments.environment import Environment


@dataclass(frozen=True)
class Episodes:
    """B episodes of at most L steps: observations (B, L, …), actions (B, L, …), rewards (B, L), zero after the end, and
    running, bool (B, L): whether the episode still ran when the action was taken."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    running: Tensor


def flat(policy: nn.Module) -> Tensor:
    """θ: a copy of all parameters of the policy in one vector (P,)."""
    return torch.nn.utils.parameters_to_vector(policy.parameters()).detach().clone()


def outputs(policy: nn.Module, theta: Tensor, observations: Tensor) -> Tensor:
    """What the policy's network says of observations (…) if its parameters were θ (P,); the policy stays as it is."""
    named = dict(policy.named_parameters())
    pieces = theta.split([p.numel() for p in named.values()])
    weights = {name: piece.view_as(p) for (name, p), piece in zip(named.items(), pieces, strict=True)}
    return functional_call(policy, weights, (observations,))


@torch.no_grad()
def rollout(
    environment: Environment, policy: nn.Module, theta: Tensor, episodes: int, generator: torch.Generator
) -> Episodes:
    """That many episodes under π_θ, θ (P,). All draws come from the generator."""
    steps = []
    seen = environment.reset(episodes, generator)
    running = torch.ones(episodes, dtype=torch.bool)
    for _ in range(environment.horizon):
        actions = policy.sample(outputs(policy, theta, seen), generator)
        reached, rewards, ended = environment.step(seen, actions, generator)
        steps.append((seen, actions, rewards.where(running, torch.zeros_like(rewards)), running))
        seen, running = reached, running & ~ended
        if not running.any():
            break
    return Episodes(*(torch.stack(parts, 1) for parts in zip(*steps, strict=True)))


def returns(rewards: Tensor, discount: float) -> Tensor:
    """Σ_h γ^h r_h of every episode, (B,), of rewards (B, L), which are zero after an episode's end."""
    return (rewards * discount ** torch.arange(rewards.shape[1], dtype=rewards.dtype)).sum(1)
