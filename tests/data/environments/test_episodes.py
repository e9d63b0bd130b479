"""Rollouts: what happens is what the environment says, nothing counts after an episode's end."""

import torch
from torch import nn

from fisherexp.data.environments.chain import chain
from fisherexp.data.environments.episodes import flat, outputs, rollout
from fisherexp.models.policies import SoftmaxPolicy, table, tanh_network
from fisherexp.seeds import generator


class CountDown:
    """Episode i ends after i + 1 steps, every step pays 1; the observation is the number of steps left."""

    horizon, discount = 6, 1.0

    def reset(self, episodes, generator):
        return torch.arange(1.0, episodes + 1)[:, None]

    def step(self, observations, actions, generator):
        return observations - 1, torch.ones(len(observations)), observations[:, 0] <= 1


def test_an_episode_counts_to_its_end_and_the_batch_to_its_longest():
    policy = SoftmaxPolicy(nn.Linear(1, 2))
    found = rollout(CountDown(), policy, flat(policy), 4, generator("count"))
    assert found.observations.shape == (4, 4, 1)
    assert torch.equal(found.running, torch.ones(4, 4, dtype=torch.bool).tril())
    assert torch.equal(found.rewards, found.running.float())
    assert rollout(CountDown(), policy, flat(policy), 9, generator("count")).rewards.shape == (9, 6)  # the horizon


def test_transitions_of_the_chain_are_possible_and_paid_as_defined():
    policy = SoftmaxPolicy(table(6, 2))
    found = rollout(chain(slip=0.0), policy, flat(policy), 50, generator("chain"))
    here, action = found.observations, found.actions
    reached = (here + 2 * action - 1).clamp(0, 5)
    assert torch.equal(here[:, 1:], reached[:, :-1])
    torch.testing.assert_close(found.rewards, 0.1 * (reached == 0).double() + (reached == 5))
    assert (here[:, 0] == 0).all()


def test_other_weights_are_answered_for_without_touching_the_policy():
    policy, seen = SoftmaxPolicy(tanh_network([3, 4, 2])), torch.randn(5, 3, generator=generator("seen"))
    before, other = flat(policy), SoftmaxPolicy(tanh_network([3, 4, 2]))
    torch.testing.assert_close(outputs(policy, flat(other), seen), other(seen), rtol=0, atol=0)
    assert torch.equal(flat(policy), before)
