"""Policies against torch.distributions, and what they sample against what they say."""

import pytest
import torch
from torch import nn

from fisherexp.models.policies import GaussianPolicy, SoftmaxPolicy, table, tanh_network
from fisherexp.seeds import generator


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=generator("policies", *shape))


def test_log_probabilities_are_those_of_torch_distributions():
    softmax, logits, actions = SoftmaxPolicy(nn.Identity()), randn(4, 5, 3), torch.arange(20).view(4, 5) % 3
    expected = torch.distributions.Categorical(logits=logits).log_prob(actions)
    torch.testing.assert_close(softmax.log_prob(softmax(logits), actions), expected)
    gaussian = GaussianPolicy(nn.Linear(2, 3).double(), action_size=3, std=0.7)
    seen, taken = randn(4, 5, 2), randn(4, 5, 3)
    law = torch.distributions.Normal(gaussian.network(seen), torch.tensor(0.7, dtype=torch.float64))
    torch.testing.assert_close(gaussian.log_prob(gaussian(seen), taken), law.log_prob(taken).sum(-1))


def test_samples_follow_the_distribution():
    count, softmax = 40_000, SoftmaxPolicy(nn.Identity())
    outputs = softmax(randn(3)).expand(count, 3)
    share = softmax.sample(outputs, generator("actions")).bincount(minlength=3) / count
    assert (share - outputs[0].exp()).abs().max() < 4 * 0.5 / count**0.5
    gaussian = GaussianPolicy(nn.Linear(2, 2).double(), action_size=2, std=0.3)
    seen = randn(2).expand(count, 2)
    drawn = gaussian.sample(gaussian(seen), generator("actions")) - gaussian.network(seen)
    torch.testing.assert_close(
        drawn.T.cov(), 0.09 * torch.eye(2, dtype=torch.float64), rtol=0, atol=5 * 0.13 / count**0.5
    )
    assert drawn.mean(0).abs().max() < 4 * 0.3 / count**0.5


def test_a_new_policy_prefers_nothing_and_sigma_is_learned_only_if_asked():
    uniform = SoftmaxPolicy(table(4, 2))(torch.arange(4)).exp()
    assert (uniform == 0.5).all()
    network = SoftmaxPolicy(tanh_network([4, 32, 32, 2]))
    assert (network(torch.randn(50, 4, generator=generator("seen"))).exp() - 0.5).abs().max() < 0.01
    names = [dict(GaussianPolicy(nn.Linear(1, 1), 1, 0.5, learn).named_parameters()) for learn in (False, True)]
    assert ["log_std" in found for found in names] == [False, True]


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_a_density_needs_a_width(std):
    with pytest.raises(ValueError, match=f"std={std}"):
        GaussianPolicy(nn.Linear(1, 1), 1, std)
