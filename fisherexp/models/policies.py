"""Policies: a network whose output is read as a distribution of actions. `forward` gives the distribution's parameters,
`sample` and `log_prob` read them, so that all three also work with other weights (torch.func.functional_call).

TablePolicy, NetworkPolicy and GaussianNetworkPolicy are the choices of conf/model, made for the spaces of a problem."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, Positive


@dataclass(frozen=True)
class Spaces:
    """What a policy sees and does: states: S of numbered ones, 0 where an observation is a vector.
    observation_size: n of vectors. actions: A of numbered ones, or the size m of vectors. discrete: which of the two.
    dtype: of the vectors, and so of the weights.
    """

    actions: int
    discrete: bool
    states: int = 0
    observation_size: int = 0
    dtype: torch.dtype = torch.float64


def table(num_states: int, num_actions: int) -> nn.Embedding:
    """One free number for each state and action, all zero: with a softmax the uniform policy. (…) -> (…, A)."""
    return nn.Embedding.from_pretrained(torch.zeros(num_states, num_actions, dtype=torch.float64), freeze=False)


def tanh_network(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of these sizes, the first the observation's and the last the output's, with tanh in between.

    The weights of the last layer begin a hundred times smaller: no action is preferred at first.
    """
    layers = [part for before, after in pairwise(sizes) for part in (nn.Linear(before, after), nn.Tanh())][:-1]
    with torch.no_grad():
        layers[-1].weight.mul_(0.01)
        layers[-1].bias.zero_()
    return nn.Sequential(*layers)


class SoftmaxPolicy(nn.Module):
    """π(a | s) = softmax(network(s))_a. Actions int64 (…)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, observations: Tensor) -> Tensor:
        """Log-probabilities (…, A)."""
        return self.network(observations).log_softmax(-1)

    @staticmethod
    def sample(outputs: Tensor, generator: torch.Generator) -> Tensor:
        """One action for each row of (B, A) -> (B,)."""
        return torch.multinomial(outputs.exp(), 1, generator=generator)[:, 0]

    @staticmethod
    def log_prob(outputs: Tensor, actions: Tensor) -> Tensor:
        """(…, A), (…) -> (…), nats."""
        return outputs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


class GaussianPolicy(nn.Module):
    """a ~ N(network(s), diag(σ²)). Actions float (…, m).

    std: σ at the start, the same for all coordinates and states. learn_std: train log σ as well.
    The score grows as 1/σ: with a small σ estimates of second order have a huge variance.
    """

    def __init__(self, network: nn.Module, action_size: int, std: float, learn_std: bool = False) -> None:
        super().__init__()
        if std <= 0:
            raise ValueError(f"std={std}: a Gaussian policy needs a positive standard deviation")
        self.network = network
        like = next(network.parameters())
        log_std = torch.full((action_size,), math.log(std), dtype=like.dtype)
        if learn_std:
            self.log_std = nn.Parameter(log_std)
        else:
            self.register_buffer("log_std", log_std)

    def forward(self, observations: Tensor) -> Tensor:
        """Means and log σ (…, 2, m)."""
        mean = self.network(observations)
        return torch.stack([mean, self.log_std.expand_as(mean)], -2)

    @staticmethod
    def sample(outputs: Tensor, generator: torch.Generator) -> Tensor:
        """One action for each row of (B, 2, m) -> (B, m)."""
        mean, log_std = outputs.unbind(-2)
        return mean + log_std.exp() * torch.randn(mean.shape, dtype=mean.dtype, generator=generator)

    @staticmethod
    def log_prob(outputs: Tensor, actions: Tensor) -> Tensor:
        """Log-density (…, 2, m), (…, m) -> (…), nats."""
        mean, log_std = outputs.unbind(-2)
        scaled = (actions - mean) * (-log_std).exp()
        return (-0.5 * scaled.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)


class TablePolicy(SoftmaxPolicy):
    """Softmax over one free number for each state and action; it begins as the uniform policy."""

    problems = ("environment",)
    provides = ()
    requires = ("states",)

    def __init__(self, *, spaces: Spaces) -> None:
        super().__init__(table(spaces.states, spaces.actions))


class NetworkPolicy(SoftmaxPolicy):
    """Softmax over the outputs of a network. hidden: widths of its tanh layers.

    Raises ValueError for a problem whose actions are no numbers.
    """

    problems = ("environment",)
    provides = ()
    requires = ("vectors",)

    def __init__(self, hidden: list[Count], *, spaces: Spaces) -> None:
        if not spaces.discrete:
            raise ValueError("the actions are vectors: a softmax has none to choose from; use model=gaussian_policy")
        super().__init__(tanh_network([spaces.observation_size, *hidden, spaces.actions]).to(spaces.dtype))


class GaussianNetworkPolicy(GaussianPolicy):
    """A Gaussian around the output of a network. hidden: widths of its tanh layers; with [] the mean is K s, without a
    constant, and K begins at zero. std, learn_std: see GaussianPolicy.

    Raises ValueError for a problem whose actions are numbers.
    """

    problems = ("environment",)
    provides = ()
    requires = ("vectors",)

    def __init__(self, hidden: list[Count], std: Positive, learn_std: bool, *, spaces: Spaces) -> None:
        if spaces.discrete:
            raise ValueError("the actions are numbered: a Gaussian draws none of them; use model=network_policy")
        sizes = [spaces.observation_size, *hidden, spaces.actions]
        network = tanh_network(sizes) if hidden else nn.Linear(*sizes, bias=False)
        if not hidden:
            nn.init.zeros_(network.weight)
        super().__init__(network.to(spaces.dtype), spaces.actions, std, learn_std)

    @property
    def gain(self) -> Tensor | None:
        """K (m, n) of a linear policy, None of others."""
        return self.network.weight if isinstance(self.network, nn.Linear) else None
