"""Policies: a network whose output is read as a distribution of actions. `forward` gives the distribution's parameters,
`sample` and `log_prob` read them, so that all three also work with other weights (torch.func.functional_call)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


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
