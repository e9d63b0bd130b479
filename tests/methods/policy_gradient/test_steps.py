"""The steps against the recursions written out, on quadratics whose gradient is known, and their exact resumption."""

import pytest
import torch

from fisherexp.data.environments.chain import chain
from fisherexp.data.environments.episodes import flat
from fisherexp.methods.policy_gradient.ascent import Ascent, Sampled, decay, normalized
from fisherexp.methods.policy_gradient.harpg import harpg_step
from fisherexp.methods.policy_gradient.n_pg_igt import n_pg_igt_step
from fisherexp.methods.policy_gradient.normalized_momentum import normalized_momentum_step
from fisherexp.methods.policy_gradient.reinforce import reinforce_step
from fisherexp.models.policies import SoftmaxPolicy, table
from fisherexp.seeds import generator

START = torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64)
HESSIAN = torch.tensor([[-2.0, 0.3, 0.0], [0.3, -1.0, 0.1], [0.0, 0.1, -0.5]], dtype=torch.float64)


def quadratic(theta):
    """∇J of J = ½ θᵀ H θ."""
    return HESSIAN @ theta


def cubic(theta):
    """∇J of J = -¼ Σ θ⁴; its Hessian is not constant."""
    return -(theta**3)


def cubic_product(theta, vector):
    return -3 * theta**2 * vector


def walk(step, iterations):
    states = [Ascent.start(START)]
    for _ in range(iterations):
        states.append(step(states[-1]))
    return states


@pytest.mark.parametrize("power", [2 / 3, 4 / 5, 1.0, 1 / 2])
def test_schedules(power):
    assert [decay(t, power) for t in range(4)] == pytest.approx([(2 / k) ** power for k in (2, 3, 4, 5)])


def test_a_direction_of_zero_gives_no_step():
    assert torch.equal(normalized(torch.zeros(3)), torch.zeros(3))
    assert torch.linalg.vector_norm(normalized(1e-30 * torch.ones(3, dtype=torch.float64))).item() == pytest.approx(1)
    still = n_pg_igt_step(Ascent.start(START), torch.zeros_like, 1.0)
    assert torch.equal(still.theta, START)


def test_transport_carries_gradients_of_a_quadratic_without_bias_and_plain_momentum_does_not():
    transported = walk(lambda s: n_pg_igt_step(s, quadratic, 0.5), 12)
    plain = walk(lambda s: normalized_momentum_step(s, quadratic, 0.5), 12)
    lagged = walk(lambda s: n_pg_igt_step(s, quadratic, 0.5, official_lag=True), 12)
    for state in transported[1:]:
        torch.testing.assert_close(state.direction, quadratic(state.previous), rtol=0, atol=1e-12)
    for other in (plain, lagged):
        assert (other[3].direction - quadratic(other[3].previous)).norm() > 0.05


def test_transport_by_the_equations():
    state, asked = walk(lambda s: n_pg_igt_step(s, cubic, 0.5), 4)[-1], []
    n_pg_igt_step(state, lambda point: asked.append(point) or cubic(point), 0.5)
    eta = (2 / 6) ** 0.8
    torch.testing.assert_close(asked[0], state.theta + (1 - eta) / eta * (state.theta - state.previous))
    found = n_pg_igt_step(state, cubic, 0.5)
    direction = (1 - eta) * state.direction + eta * cubic(asked[0])
    torch.testing.assert_close(found.direction, direction)
    torch.testing.assert_close(found.theta, state.theta + 0.5 * 2 / 6 * direction / direction.norm())


def test_the_lag_of_the_official_code():
    """Looking ahead with η_{t-1}: not at all in the first two steps, then by the factor of the step before."""
    for t, expected in [(0, 0.0), (1, 0.0), (2, 1.5**0.8 - 1), (3, 2**0.8 - 1)]:
        asked, state = [], Ascent(START, START - 1, torch.zeros(3), iteration=t)
        n_pg_igt_step(state, lambda point: asked.append(point) or cubic(point), 1.0, official_lag=True)  # noqa: B023
        torch.testing.assert_close(asked[0] - START, torch.full_like(START, expected))


def test_reinforce_and_momentum_by_the_equations():
    third = walk(lambda s: reinforce_step(s, cubic, 0.01), 3)
    torch.testing.assert_close(third[3].theta, third[2].theta + 0.01 * (2 / 4) ** (2 / 3) * cubic(third[2].theta))
    turned = walk(lambda s: reinforce_step(s, cubic, 0.01, normalize=True), 3)
    assert (turned[3].theta - turned[2].theta).norm().item() == pytest.approx(0.01 * 2 / 4)
    heavy = walk(lambda s: normalized_momentum_step(s, cubic, 0.5), 3)
    eta = (2 / 4) ** (2 / 3)
    torch.testing.assert_close(heavy[3].direction, (1 - eta) * heavy[2].direction + eta * cubic(heavy[2].theta))
    assert (heavy[3].theta - heavy[2].theta).norm().item() == pytest.approx(0.5 * 2 / 4)


def test_with_all_weight_on_the_newest_gradient_transport_is_a_normalized_policy_gradient():
    """η_0 = 1: the first steps of all normalized methods are one and the same."""
    first = [
        n_pg_igt_step(Ascent.start(START), cubic, 0.5),
        normalized_momentum_step(Ascent.start(START), cubic, 0.5),
        reinforce_step(Ascent.start(START), cubic, 0.5, normalize=True),
        harpg_step(Ascent.start(START), cubic, cubic_product, 0.3, 0.5, normalize=True),
    ]
    for other in first[1:]:
        torch.testing.assert_close(other, first[0], rtol=0, atol=0)


@pytest.mark.parametrize("normalize", [False, True])
def test_harpg_by_the_equations(normalize):
    asked = []

    def product(point, vector):
        asked.append((point, vector))
        return cubic_product(point, vector)

    states = walk(lambda s: harpg_step(s, cubic, product, 0.3, 0.01, normalize), 3)
    before, last = states[2], states[3]
    point, vector = asked[-1]
    assert len(asked) == 2  # none at the first step
    assert [s.batches for s in states] == [0, 1, 3, 5]
    torch.testing.assert_close(point, 0.3 * before.theta + 0.7 * before.previous)
    torch.testing.assert_close(vector, before.theta - before.previous)
    direction = 0.5 * (before.direction + cubic_product(point, vector)) + 0.5 * cubic(before.theta)
    torch.testing.assert_close(last.direction, direction)
    moved = 0.5 * direction / direction.norm() if normalize else 0.5**0.5 * direction
    torch.testing.assert_close(last.theta, before.theta + 0.01 * moved)


def test_over_the_random_point_the_product_is_the_difference_of_gradients():
    """E over q of ∇²J(θ̂)(θ - θ') is ∇J(θ) - ∇J(θ'): exact by three Gauss nodes, as it is quadratic in q here."""
    import numpy as np

    new, old = START, START - torch.tensor([0.4, 1.0, -2.0], dtype=torch.float64)
    nodes, weights = np.polynomial.legendre.leggauss(3)
    points = [(0.5 * (1 + x), 0.5 * w) for x, w in zip(nodes.tolist(), weights.tolist(), strict=True)]
    state = Ascent(new, old, torch.zeros_like(new), iteration=2)
    eta = 2 / 4
    mean = sum(w * harpg_step(state, torch.zeros_like, cubic_product, q, 1.0).direction for q, w in points) / (1 - eta)
    torch.testing.assert_close(mean, cubic(new) - cubic(old))
    at_the_end = harpg_step(state, torch.zeros_like, cubic_product, 1.0, 1.0).direction / (1 - eta)
    assert (at_the_end - mean).norm() > 0.1


STEPS = {
    "reinforce": lambda state, s: reinforce_step(state, s.gradient, 0.5),
    "momentum": lambda state, s: normalized_momentum_step(state, s.gradient, 0.5),
    "igt": lambda state, s: n_pg_igt_step(state, s.gradient, 0.5),
    "harpg": lambda state, s: harpg_step(state, s.gradient, s.product, s.uniform(), 0.5),
}


@pytest.mark.parametrize("name", STEPS)
def test_state_and_generator_are_all_it_takes_to_go_on(name, tmp_path):
    policy = SoftmaxPolicy(table(6, 2))

    def go(state, draw, steps):
        sampled = Sampled(chain(), policy, draw, episodes=2)
        for _ in range(steps):
            state = STEPS[name](state, sampled)
        return state

    straight = go(Ascent.start(flat(policy)), generator("walk"), 6)
    draw = generator("walk")
    half = go(Ascent.start(flat(policy)), draw, 3)
    torch.save({"ascent": half.state_dict(), "draw": draw.get_state()}, tmp_path / "half.pt")
    saved = torch.load(tmp_path / "half.pt")
    other = torch.Generator()
    other.set_state(saved["draw"])
    resumed = go(Ascent.load(saved["ascent"]), other, 3)
    torch.testing.assert_close(resumed, straight, rtol=0, atol=0)
    elsewhere = go(Ascent.load(saved["ascent"]), generator("another"), 3)
    assert not torch.equal(elsewhere.theta, straight.theta)
