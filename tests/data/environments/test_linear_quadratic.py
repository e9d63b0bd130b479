"""Closed forms of the linear-quadratic environment against samples, and against optimization over gains."""

import pytest
import torch

from fisherexp.data.environments.linear_quadratic import LinearQuadratic, expected_return, optimal_return
from fisherexp.seeds import generator

I2 = torch.eye(2, dtype=torch.float64)


def point_mass(horizon=5, **options):
    a = torch.tensor([[1.0, 0.3], [0.0, 1.0]], dtype=torch.float64)
    b = torch.tensor([[0.0], [0.5]], dtype=torch.float64)
    start = torch.tensor([1.0, -0.5], dtype=torch.float64)
    return LinearQuadratic(a, b, I2, 0.1 * I2[:1, :1], start, horizon, 0.9, **options)


def test_return_is_the_mean_of_sampled_episodes():
    environment, draw, count = point_mass(noise=0.2, start_noise=0.3), generator("episodes"), 40_000
    gain = torch.tensor([[-0.4, -0.8]], dtype=torch.float64)
    std = torch.tensor([0.3], dtype=torch.float64)
    state, total = environment.reset(count, draw), torch.zeros(count, dtype=torch.float64)
    for h in range(environment.horizon):
        action = state @ gain.mT + std * torch.randn(count, 1, dtype=torch.float64, generator=draw)
        state, reward, ended = environment.step(state, action, draw)
        total += environment.discount**h * reward
        assert not ended.any()
    error = total.std().item() / count**0.5
    assert total.mean().item() == pytest.approx(expected_return(environment, gain, std).item(), abs=4 * error)


def test_no_gain_beats_the_riccati_recursion_and_for_one_step_the_best_gain_reaches_it():
    still = torch.zeros(1, dtype=torch.float64)
    for horizon in (1, 5):
        # Both coordinates of the start are met only if it is random; else the gain is not determined.
        environment = point_mass(horizon=horizon, noise=0.1, start_noise=1.0)
        gain = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
        search = torch.optim.LBFGS([gain], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

        def cost(search=search, environment=environment, gain=gain):
            search.zero_grad()
            loss = -expected_return(environment, gain, still)
            loss.backward()
            return loss

        search.step(cost)
        reached = expected_return(environment, gain.detach(), still).item()
        best = optimal_return(environment)
        assert reached <= best + 1e-10
        assert reached == pytest.approx(best, abs=1e-8 if horizon == 1 else 0.2)
