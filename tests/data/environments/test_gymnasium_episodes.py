"""Gymnasium's environments behind our face: the same episodes from the same generator, and clear refusals."""

import pytest
import torch

from fisherexp.data.environments.gymnasium_episodes import GymnasiumEpisodes
from fisherexp.seeds import generator

gymnasium = pytest.importorskip("gymnasium")


def episode_lengths(environment, draw, count=4):
    seen, steps = environment.reset(count, draw), torch.zeros(count)
    running = torch.ones(count, dtype=torch.bool)
    for _ in range(environment.horizon):
        steps += running
        seen, rewards, ended = environment.step(seen, torch.ones(count, dtype=torch.int64), draw)
        assert torch.equal(rewards, running.float())  # 1 for every step, nothing after the end
        running &= ~ended
        if not running.any():
            break
    return steps, seen


def test_episodes_are_those_of_gymnasium_with_the_drawn_seeds():
    environment = GymnasiumEpisodes("CartPole-v1", horizon=200, discount=0.99)
    assert (environment.observation_size, environment.action_size) == (4, 2)
    steps, last = episode_lengths(environment, generator("seeds"))
    for i, seed in enumerate(torch.randint(2**31, (4,), generator=generator("seeds")).tolist()):
        alone = gymnasium.make("CartPole-v1")
        alone.reset(seed=seed)
        for count in range(1, 201):  # noqa: B007 - how many steps it took
            seen, _, terminated, _, _ = alone.step(1)
            if terminated:
                break
        assert steps[i] == count
        assert torch.equal(last[i], torch.from_numpy(seen))
    assert len(set(steps.tolist())) > 1  # they do not all end together


def test_the_horizon_cuts_and_a_second_batch_begins_anew():
    environment = GymnasiumEpisodes("CartPole-v1", horizon=5, discount=0.99)
    draw = generator("cut")
    assert torch.equal(episode_lengths(environment, draw)[0], torch.full((4,), 5.0))
    assert torch.equal(episode_lengths(environment, draw)[0], torch.full((4,), 5.0))


def test_continuous_actions_are_moved_to_the_border():
    environment = GymnasiumEpisodes("Pendulum-v1", horizon=3, discount=0.99)
    seen = environment.reset(2, generator("pendulum"))
    beyond = environment.step(seen, torch.tensor([[50.0], [-50.0]]), generator())[:2]
    seen = environment.reset(2, generator("pendulum"))
    border = environment.step(seen, torch.tensor([[2.0], [-2.0]]), generator())[:2]
    torch.testing.assert_close(beyond, border, rtol=0, atol=0)


def test_unknown_names_and_other_spaces_are_refused():
    with pytest.raises(ValueError, match="no environment CartPole-v77"):
        GymnasiumEpisodes("CartPole-v77", horizon=5, discount=1.0)
    with pytest.raises(ValueError, match="one-axis Box"):
        GymnasiumEpisodes("Taxi-v4" if "Taxi-v4" in gymnasium.registry else "Taxi-v3", horizon=5, discount=1.0)
