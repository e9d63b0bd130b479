"""What an environment is to a policy gradient: B episodes at a time, every draw from a generator that is handed in."""

from typing import Protocol

import torch
from torch import Tensor


class Environment(Protocol):
    """The observation is the whole state, so nothing is kept from one batch of episodes to the next.

    horizon: most steps of an episode. discount: γ, the reward of step h = 0, 1, … counts γ^h.
    """

    horizon: int
    discount: float

    def reset(self, episodes: int, generator: torch.Generator) -> Tensor:
        """First observations (B, …) of B new episodes."""

    def step(self, observations: Tensor, actions: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Next observations (B, …), rewards (B,) and whether the episode has ended, bool (B,).

        Of an episode that has ended the further rewards are not defined: the caller leaves them out.
        """
