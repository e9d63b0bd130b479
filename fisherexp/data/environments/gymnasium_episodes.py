"""Gymnasium's environments (Towers et al., 2024, arXiv 2407.17032): the extra `rl`, e.g. CartPole-v1.

Every episode's seed is drawn from the generator that is handed in. A run that goes on from a saved generator meets the
same episodes as one that was never interrupted.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor


class GymnasiumEpisodes:
    """B episodes side by side, with observations float32 (B, n) of a Box and Discrete or one-axis Box actions.

    name: e.g. CartPole-v1. horizon: H; an episode that lasts longer is cut there, and the last return is what was
    collected so far. discount: γ. options: of the environment, e.g. {"sutton_barto_reward": True}.
    Raises ValueError for an unknown name and for spaces of other kinds; ModuleNotFoundError without gymnasium.
    """

    def __init__(self, name: str, horizon: int, discount: float, **options: Any) -> None:
        try:
            import gymnasium
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{name} needs gymnasium: pip install 'fisherexp[rl]'") from error
        self.horizon, self.discount = horizon, discount
        self._make = lambda: gymnasium.make(name, max_episode_steps=horizon, **options)
        self._environments: list[Any] = []
        try:
            self._grow(1)
        except gymnasium.error.Error as error:
            raise ValueError(f"no environment {name}: {error}") from error
        seen, taken = self._environments[0].observation_space, self._environments[0].action_space
        self.discrete = isinstance(taken, gymnasium.spaces.Discrete)
        boxed = isinstance(taken, gymnasium.spaces.Box) and len(taken.shape) == 1
        if not (isinstance(seen, gymnasium.spaces.Box) and len(seen.shape) == 1 and (self.discrete or boxed)):
            raise ValueError(
                f"{name} has observations {seen} and actions {taken}: need a one-axis Box, and Discrete or such a Box"
            )
        self.observation_size = seen.shape[0]
        self.action_size = int(taken.n) if self.discrete else taken.shape[0]
        self._first = int(taken.start) if self.discrete else 0
        self._limits = None if self.discrete else (taken.low, taken.high)

    def reset(self, episodes: int, generator: torch.Generator) -> Tensor:
        self._grow(episodes)
        seeds = torch.randint(2**31, (episodes,), generator=generator).tolist()
        self._running = [True] * episodes
        begun = [e.reset(seed=seed)[0] for e, seed in zip(self._environments, seeds, strict=False)]
        return torch.from_numpy(np.stack(begun)).float()

    def step(self, observations: Tensor, actions: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """As the environments themselves: those behind `observations`, which must be the last ones they gave.

        Actions outside a Box are moved to its border, as the simulator would not accept them.
        """
        reached, rewards = observations.clone(), torch.zeros(len(observations))
        for i, action in enumerate(actions):
            if self._running[i]:
                seen, reward, terminated, truncated, _ = self._environments[i].step(self._action(action))
                reached[i], rewards[i] = torch.from_numpy(np.asarray(seen)).float(), float(reward)
                self._running[i] = not (terminated or truncated)
        return reached, rewards, ~torch.tensor(self._running)

    def _grow(self, episodes: int) -> None:
        while len(self._environments) < episodes:
            self._environments.append(self._make())

    def _action(self, action: Tensor) -> int | np.ndarray:
        if self.discrete:
            return int(action) + self._first
        return np.clip(action.numpy().astype(np.float32), *self._limits)
