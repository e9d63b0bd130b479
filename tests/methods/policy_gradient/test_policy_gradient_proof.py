"""Small-scale proof on the chain: what momentum, transport and Hessian correction are worth; three seeds.

Measured against dynamic programming: the error of the direction, mean ‖d_t - ∇J(θ_t)‖ over the second half, and the
return J of the last policy. Each method draws the same number of episodes.
With momentum, transport or Hessian correction about a third of the ascents stay at the near reward: the first steps are
long and point where the first episodes went. Three seeds cannot rank these methods by return, nor by the error, which
is small where an ascent is stuck. So no rank among them is claimed.
"""

import statistics

import pytest
import torch

from fisherexp.data.environments.chain import chain
from fisherexp.data.environments.episodes import flat, outputs
from fisherexp.data.environments.finite import expected_return, optimal_return
from fisherexp.methods.policy_gradient.ascent import Ascent, Sampled
from fisherexp.methods.policy_gradient.harpg import harpg_step
from fisherexp.methods.policy_gradient.n_pg_igt import n_pg_igt_step
from fisherexp.methods.policy_gradient.normalized_momentum import normalized_momentum_step
from fisherexp.methods.policy_gradient.reinforce import reinforce_step
from fisherexp.models.policies import SoftmaxPolicy, table
from fisherexp.seeds import generator

pytestmark = pytest.mark.proof
SEEDS = (0, 1, 2)
BUDGET = 3000
STEP_SIZE = {1: 0.5, 5: 2.0}  # γ_0, by the number of episodes a step
EVERY = 10  # steps from one measurement of the direction to the next
STEPS = {
    "single": lambda state, s, size: reinforce_step(state, s.gradient, size, normalize=True),
    "momentum": lambda state, s, size: normalized_momentum_step(state, s.gradient, size),
    "igt": lambda state, s, size: n_pg_igt_step(state, s.gradient, size),
    "harpg": lambda state, s, size: harpg_step(state, s.gradient, s.product, s.uniform(), size, normalize=True),
}


def climb(name: str, seed: int, episodes: int, step_size: float) -> tuple[float, float]:
    """(error of the direction, return) of one ascent from the uniform policy."""
    environment, policy = chain(), SoftmaxPolicy(table(6, 2))

    def objective(theta):
        return expected_return(environment, outputs(policy, theta, torch.arange(6)).exp())

    sampled = Sampled(environment, policy, generator(name, seed), episodes, episodes)
    state, errors = Ascent.start(flat(policy)), []
    while state.batches * episodes < BUDGET:
        state = STEPS[name](state, sampled, step_size)
        if state.batches * episodes >= BUDGET / 2 and state.iteration % EVERY == 0:
            errors.append((state.direction - torch.func.grad(objective)(state.previous)).norm().item())
    return statistics.fmean(errors), objective(state.theta).item()


@pytest.fixture(scope="module")
def found():
    """(error, return) of each method with so many episodes a step, means over the seeds."""
    kept = {}

    def found(episodes: int) -> dict[str, list[float]]:
        if episodes not in kept:
            runs = {name: [climb(name, seed, episodes, STEP_SIZE[episodes]) for seed in SEEDS] for name in STEPS}
            means = {name: [statistics.fmean(values) for values in zip(*of, strict=True)] for name, of in runs.items()}
            print(f"{episodes} a step:", {name: [round(v, 3) for v in values] for name, values in means.items()})
            kept[episodes] = means
        return kept[episodes]

    return found


@pytest.mark.parametrize("episodes", STEP_SIZE)
def test_all_three_follow_the_gradient_better_than_one_estimate(found, episodes):
    error = {name: values[0] for name, values in found(episodes).items()}
    assert max(error["igt"], error["momentum"], error["harpg"]) < error["single"]


def test_with_one_episode_a_step_momentum_takes_most_of_the_noise_away_and_only_so_is_the_far_end_found(found):
    error, reached = ({name: values[i] for name, values in found(1).items()} for i in (0, 1))
    assert max(error["momentum"], error["igt"]) < 0.3 * error["single"]
    assert min(reached["momentum"], reached["igt"], reached["harpg"]) > 1.5 * reached["single"]
    assert max(reached.values()) <= optimal_return(chain())
