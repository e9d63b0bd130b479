"""Dynamic programming against the enumeration of every trajectory and every policy."""

from itertools import product

import pytest
import torch

from fisherexp.data.environments.chain import chain
from fisherexp.data.environments.finite import FiniteEnvironment, expected_return, optimal_return
from fisherexp.seeds import generator

HORIZON = 3


@pytest.fixture
def small():
    draw = generator("a small environment")
    tables = [torch.rand(shape, dtype=torch.float64, generator=draw) for shape in [(2,), (2, 2, 2), (2, 2, 2)]]
    return FiniteEnvironment(tables[0] / tables[0].sum(), tables[1] / tables[1].sum(-1, True), tables[2], HORIZON, 0.8)


def enumerated(environment, policy):
    """J as the sum over trajectories of probability times return; policy(h, s, a) is a probability."""
    total = 0.0
    for first, *moves in product(range(2), repeat=1 + 2 * environment.horizon):
        probability, collected, state = environment.start[first].item(), 0.0, first
        for h, (action, reached) in enumerate(zip(moves[::2], moves[1::2], strict=True)):
            probability *= policy(h, state, action) * environment.transitions[state, action, reached].item()
            collected += environment.discount**h * environment.rewards[state, action, reached].item()
            state = reached
        total += probability * collected
    return total


def test_return_is_the_sum_over_all_trajectories(small):
    probabilities = torch.tensor([[0.3, 0.7], [0.9, 0.1]], dtype=torch.float64)
    found = expected_return(small, probabilities).item()
    assert found == pytest.approx(enumerated(small, lambda h, s, a: probabilities[s, a].item()), abs=1e-12)


def test_optimal_return_is_the_best_of_all_policies_that_know_the_step(small):
    tables = product(range(2), repeat=2 * HORIZON)
    best = max(enumerated(small, lambda h, s, a, t=table: float(t[2 * h + s] == a)) for table in tables)
    assert optimal_return(small) == pytest.approx(best, abs=1e-12)


def test_the_chain_has_its_published_returns():
    environment = chain()
    uniform = torch.full((6, 2), 0.5, dtype=torch.float64)
    assert expected_return(environment, uniform).item() == pytest.approx(0.4995, abs=5e-5)
    assert optimal_return(environment) == pytest.approx(2.8623, abs=5e-5)
    assert optimal_return(chain(slip=0.0, length=2, horizon=2, discount=0.5)) == pytest.approx(1.5)


def test_steps_follow_the_tables(small):
    draw, count = generator("steps"), 40_000
    states = small.reset(count, draw)
    assert (states.bincount() / count - small.start).abs().max() < 4 * 0.5 / count**0.5
    actions = torch.ones_like(states)
    reached, rewards, ended = small.step(states, actions, draw)
    assert torch.equal(rewards, small.rewards[states, actions, reached])
    assert not ended.any()
    for state in range(2):
        rows = reached[states == state]
        share = rows.bincount(minlength=2) / len(rows)
        assert (share - small.transitions[state, 1]).abs().max() < 4 * 0.5 / len(rows) ** 0.5


@pytest.mark.parametrize("name", ["start", "transitions", "rewards"])
def test_tables_that_do_not_fit_are_refused_by_name(small, name):
    tables = {"start": small.start, "transitions": small.transitions, "rewards": small.rewards}
    with pytest.raises(ValueError, match=f"{name} has shape"):
        FiniteEnvironment(**tables | {name: tables[name][..., :1]}, horizon=1, discount=1.0)
    if name != "rewards":
        with pytest.raises(ValueError, match=f"{name} must hold distributions"):
            FiniteEnvironment(**tables | {name: 2 * tables[name]}, horizon=1, discount=1.0)
