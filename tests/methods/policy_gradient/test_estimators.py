"""Estimates from episodes against the exact gradient and Hessian of the return, by enumeration and by sampling."""

from itertools import product

import pytest
import torch
from torch import nn

from fisherexp.data.environments.chain import chain
from fisherexp.data.environments.episodes import Episodes, flat, outputs, returns, rollout
from fisherexp.data.environments.finite import FiniteEnvironment, expected_return
from fisherexp.data.environments.linear_quadratic import LinearQuadratic
from fisherexp.data.environments.linear_quadratic import expected_return as linear_return
from fisherexp.methods.policy_gradient.ascent import Sampled
from fisherexp.methods.policy_gradient.estimators import (
    hessian_product,
    log_probs,
    policy_gradient,
    rewards_to_go,
)
from fisherexp.models.policies import GaussianPolicy, SoftmaxPolicy, table, tanh_network
from fisherexp.seeds import generator

STATES, ACTIONS, HORIZON, DISCOUNT = 3, 2, 2, 0.7


@pytest.fixture(scope="module")
def small():
    draw = generator("three states")
    start = torch.rand(STATES, dtype=torch.float64, generator=draw)
    moves = torch.rand(STATES, ACTIONS, STATES, dtype=torch.float64, generator=draw)
    rewards = torch.randn(moves.shape, dtype=torch.float64, generator=draw)
    return FiniteEnvironment(start / start.sum(), moves / moves.sum(-1, True), rewards, HORIZON, DISCOUNT)


class OneHotNetwork(nn.Module):
    """A tanh network on states as unit vectors: a policy that is not linear in its parameters."""

    def __init__(self):
        super().__init__()
        self.layers = tanh_network([STATES, 4, ACTIONS]).double()

    def forward(self, states):
        return self.layers(nn.functional.one_hot(states, STATES).double())


POLICIES = {"table": lambda: SoftmaxPolicy(table(STATES, ACTIONS)), "network": lambda: SoftmaxPolicy(OneHotNetwork())}


@pytest.fixture(params=POLICIES)
def policy(request):
    return POLICIES[request.param]()


@pytest.fixture
def theta(policy):
    size = len(flat(policy))
    return torch.randn(size, dtype=torch.float64, generator=generator("theta"))


def all_trajectories(environment):
    """Every trajectory as a batch of one, with its start's and transitions' probability."""
    for first, *moves in product(range(STATES), *[range(ACTIONS), range(STATES)] * HORIZON):
        states, actions = torch.tensor([first, *moves[1::2]]), torch.tensor(moves[::2])
        before, after = states[:-1], states[1:]
        chance = environment.start[first] * environment.transitions[before, actions, after].prod()
        rewards = environment.rewards[before, actions, after]
        running = torch.ones(1, HORIZON, dtype=torch.bool)
        yield chance, Episodes(before[None], actions[None], rewards[None], running)


def exact_return(environment, policy):
    return lambda theta: expected_return(environment, outputs(policy, theta, torch.arange(STATES)).exp())


def expectation(environment, policy, theta, estimate):
    """E over τ ~ π_θ of estimate(episode, Ψ)."""
    total = 0.0
    for chance, episode in all_trajectories(environment):
        likelihood = chance * log_probs(policy, theta, episode).sum().exp().detach()
        total = total + likelihood * estimate(episode, rewards_to_go(episode.rewards, DISCOUNT))
    return total


def test_rewards_to_go_by_the_definition():
    rewards = torch.randn(2, 4, dtype=torch.float64, generator=generator("rewards"))
    found = rewards_to_go(rewards, 0.9)
    for b, h in product(range(2), range(4)):
        assert found[b, h].item() == pytest.approx(sum(0.9**i * rewards[b, i].item() for i in range(h, 4)))
    torch.testing.assert_close(returns(rewards, 0.9), found[:, 0])


def test_gradient_is_unbiased(small, policy, theta):
    exact = torch.func.grad(exact_return(small, policy))(theta)
    mean = expectation(small, policy, theta, lambda e, to_go: policy_gradient(policy, theta, e, to_go))
    torch.testing.assert_close(mean, exact, rtol=1e-10, atol=1e-12)


def test_hessian_product_is_unbiased_and_the_product_of_means_is_not(small, policy, theta):
    vector = torch.randn(len(theta), dtype=torch.float64, generator=generator("vector"))
    exact = torch.func.hessian(exact_return(small, policy))(theta) @ vector

    def parts(episode, to_go):
        score = torch.func.grad(lambda t: log_probs(policy, t, episode).sum())(theta) @ vector
        gradient = policy_gradient(policy, theta, episode, to_go)
        product = hessian_product(policy, theta, vector, episode, to_go)
        return torch.stack([product, gradient, score.expand_as(theta), score * gradient])

    product, gradient, score, outer = expectation(small, policy, theta, parts)
    torch.testing.assert_close(product, exact, rtol=1e-10, atol=1e-12)
    of_means = product - outer + score * gradient
    assert (of_means - exact).abs().max() > 0.1 * exact.abs().max()


def test_both_stay_unbiased_with_a_baseline_of_the_state(small, policy, theta):
    baseline = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    vector = torch.linspace(-1, 1, len(theta), dtype=torch.float64)
    objective = exact_return(small, policy)
    mean = expectation(
        small, policy, theta, lambda e, to_go: policy_gradient(policy, theta, e, to_go - baseline[e.observations])
    )
    product_ = expectation(
        small,
        policy,
        theta,
        lambda e, to_go: hessian_product(policy, theta, vector, e, to_go - baseline[e.observations]),
    )
    torch.testing.assert_close(mean, torch.func.grad(objective)(theta), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(product_, torch.func.hessian(objective)(theta) @ vector, rtol=1e-10, atol=1e-12)


def test_a_batch_gives_the_mean_over_its_episodes_and_leaves_the_policy_alone(small, policy, theta):
    before = flat(policy)
    batch = rollout(small, policy, theta, 5, generator("batch"))
    to_go, vector = rewards_to_go(batch.rewards, DISCOUNT), torch.ones_like(theta)
    for estimate in (
        lambda e, g: policy_gradient(policy, theta, e, g),
        lambda e, g: hessian_product(policy, theta, vector, e, g),
    ):
        parts = (batch.observations, batch.actions, batch.rewards, batch.running)
        single = [estimate(Episodes(*(p[i, None] for p in parts)), to_go[i, None]) for i in range(5)]
        torch.testing.assert_close(estimate(batch, to_go), torch.stack(single).mean(0))
    assert torch.equal(flat(policy), before)


def test_steps_after_the_end_do_not_count(small, policy, theta):
    batch = rollout(small, policy, theta, 3, generator("masked"))
    running = batch.running.clone()
    running[:, 1] = False
    short = Episodes(batch.observations, batch.actions, batch.rewards * running, running)
    first = Episodes(*(p[:, :1] for p in (batch.observations, batch.actions, batch.rewards, batch.running)))
    for episodes, other in [(short, first)]:
        found = policy_gradient(policy, theta, episodes, rewards_to_go(episodes.rewards, DISCOUNT))
        expected = policy_gradient(policy, theta, other, rewards_to_go(other.rewards, DISCOUNT))
        torch.testing.assert_close(found, expected)


def test_with_fixed_episodes_the_curvature_is_the_slope_of_the_gradient():
    """Of one episode: product - score · gradient = ∇²Φ v, by finite differences; a network and a learned σ."""
    identity = torch.eye(2, dtype=torch.float64)
    start = torch.ones(2, dtype=torch.float64)
    environment = LinearQuadratic(identity, identity, identity, identity, start, 4, 0.9, noise=0.3)
    policy = GaussianPolicy(tanh_network([2, 5, 2]).double(), action_size=2, std=0.7, learn_std=True)
    theta = torch.randn(len(flat(policy)), dtype=torch.float64, generator=generator("gaussian"))
    vector = torch.randn(len(theta), dtype=torch.float64, generator=generator("along"))
    episode = rollout(environment, policy, theta, 1, generator("episode"))
    to_go = rewards_to_go(episode.rewards, 0.9)
    score = torch.func.grad(lambda t: log_probs(policy, t, episode).sum())(theta) @ vector
    found = hessian_product(policy, theta, vector, episode, to_go)
    found = found - score * policy_gradient(policy, theta, episode, to_go)
    step = 1e-5
    ahead, behind = (policy_gradient(policy, theta + s * vector, episode, to_go) for s in (step, -step))
    torch.testing.assert_close(found, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("point", [0.0, 0.2])
def test_on_a_gaussian_bandit_the_samples_mean_is_the_closed_form(point):
    """r = -(a - 1)² for a ~ N(θ, σ²): ∇J = -2(θ - 1) and ∇²J = -2, whatever σ."""
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    bandit = LinearQuadratic(one, -one, one, zero, torch.ones(1, dtype=torch.float64), horizon=1, discount=1.0)
    policy = GaussianPolicy(nn.Linear(1, 1, bias=False).double(), action_size=1, std=0.8)
    theta, count = torch.tensor([point], dtype=torch.float64), 20_000
    exact = linear_return(bandit, theta[None], torch.tensor([0.8], dtype=torch.float64)).item()
    assert exact == pytest.approx(-((point - 1) ** 2) - 0.64)
    blocks = [Sampled(bandit, policy, generator("bandit", i), count // 20, count // 20) for i in range(20)]
    for estimate, expected in [
        (lambda b: b.gradient(theta), -2 * (point - 1)),
        (lambda b: b.product(theta, torch.ones_like(theta)), -2.0),
    ]:
        means = torch.stack([estimate(b) for b in blocks])
        assert means.mean().item() == pytest.approx(expected, abs=4 * means.std().item() / 20**0.5)
        assert means.std().item() < 0.5  # else the interval would hold anything


def test_on_the_chain_the_samples_means_are_those_of_dynamic_programming():
    environment, policy = chain(), SoftmaxPolicy(table(6, 2))
    theta = 0.5 * torch.randn(12, dtype=torch.float64, generator=generator("chain"))
    vector = torch.randn(12, dtype=torch.float64, generator=generator("direction"))

    def objective(theta):
        return expected_return(environment, outputs(policy, theta, torch.arange(6)).exp())

    step = 1e-5
    slope = torch.func.grad(objective)
    exact = {
        "gradient": slope(theta),
        "product": (slope(theta + step * vector) - slope(theta - step * vector)) / step / 2,
    }
    blocks = [Sampled(environment, policy, generator("chain", i), 500, 500) for i in range(20)]
    found = {"gradient": [b.gradient(theta) for b in blocks], "product": [b.product(theta, vector) for b in blocks]}
    for name, expected in exact.items():
        means = torch.stack(found[name])
        error = means.std(0) / 20**0.5
        assert ((means.mean(0) - expected).abs() <= 4 * error + 1e-12).all(), name
        assert error.norm() < 0.5 * expected.norm(), name
