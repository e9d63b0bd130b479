"""Hypergradients against their closed form, bounds that hold, steps that descend, and what accuracy is good for."""

import pytest
import torch

from fisherexp.methods.numerics.hoag import Hoag
from fisherexp.methods.numerics.hypergradient import conjugate_gradients, hypergradient, upper_bounds
from fisherexp.methods.numerics.maid import FixedAccuracy, Maid
from fisherexp.problems.bilevel import BilevelQuadratic
from fisherexp.problems.bilevel_denoising import FieldsOfExperts, TotalVariation
from fisherexp.problems.bilevel_ridge import LogisticRidge

KINDS = [Maid, FixedAccuracy, Hoag]


@pytest.fixture(scope="module")
def quadratic():
    return BilevelQuadratic(n=60, m=4).load(0)


@pytest.fixture(scope="module")
def denoising():
    return TotalVariation(1, 12, 0.1, 0.1, 0.01).load(0)


def finished(method, problem):
    method.begin(problem, 0)
    while not method.done:
        method.step()
    return method


def inexact(problem, epsilon, delta, theta=None):
    """At a point that is epsilon away from x̂, in a random direction, and the linear system solved to delta."""
    x, first = problem.start
    theta = first if theta is None else theta
    exact = problem.solved(theta, x, 1e-11).x
    away = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = exact + epsilon * away / away.norm()
    return x, exact, hypergradient(problem, x, theta, epsilon, delta, torch.zeros_like(x))[0]


def test_the_hypergradient_has_its_closed_form(quadratic):
    """θ -> x̂ is linear: ∇f = -(A₂ᵀA₃)ᵀ (A₂ᵀA₂)⁻¹ ∇g."""
    a2, a3 = quadratic.instance["A2"], quadratic.instance["A3"]
    x, _, found = inexact(quadratic, 1e-11, 1e-12)
    (slope,) = torch.autograd.grad(quadratic.upper(x.requires_grad_()), x)
    expected = -(a2.T @ a3).T @ torch.linalg.solve(a2.T @ a2, slope)
    torch.testing.assert_close(found.z, expected, rtol=1e-8, atol=1e-8)


def ridge(weight_for, start=-1.0):
    """A small one, and a θ that is the same everywhere."""
    problem = LogisticRidge(40, start, weight_for).load(0)
    return problem, problem.start[1]


@pytest.mark.parametrize("weight_for", ["all", "pixel", "entry"])
def test_the_hypergradient_of_ridge_weights_is_that_of_finite_differences(weight_for):
    problem, theta = ridge(weight_for)
    draws = torch.randn(2, len(theta), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    theta, direction = theta + 0.3 * draws[0], draws[1] / draws[1].norm()

    def loss(length):
        return float(problem.upper(problem.solved(theta + length * direction, problem.start[0], 1e-11).x))

    expected = (loss(1e-4) - loss(-1e-4)) / 2e-4
    *_, exact = inexact(problem, 1e-11, 1e-12, theta)
    assert float(exact.z @ direction) == pytest.approx(expected, rel=1e-6)
    *_, loose = inexact(problem, 0.1, 0.1, theta)  # the control
    assert float(loose.z @ direction) != pytest.approx(expected, rel=1e-3)


def test_a_shared_ridge_weight_has_the_sum_of_the_derivatives_of_its_parts():
    alone, pixels, entries = (
        inexact(problem, 1e-11, 1e-12, theta)[2].z for problem, theta in map(ridge, ("all", "pixel", "entry"))
    )
    torch.testing.assert_close(entries.reshape(64, 10).sum(1), pixels, rtol=0, atol=1e-9)
    torch.testing.assert_close(pixels.sum(0, keepdim=True), alone, rtol=0, atol=1e-9)
    assert float(alone.abs()) > 1e-2


@pytest.fixture(scope="module")
def filters():
    return FieldsOfExperts(1, 8, 0.1, 0.5, 0.01, learn="filters").load(0)


def test_the_hypergradient_of_filters_is_that_of_finite_differences(filters):
    x, theta = filters.start
    draws = torch.randn(2, len(theta), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    theta, direction = theta + 0.1 * draws[0], draws[1] / draws[1].norm()

    def loss(length):
        return float(filters.upper(filters.solved(theta + length * direction, x, 1e-11).x))

    *_, exact = inexact(filters, 1e-11, 1e-12, theta)
    assert float(exact.z @ direction) == pytest.approx((loss(1e-4) - loss(-1e-4)) / 2e-4, rel=1e-5)


def test_beyond_the_reach_of_its_constants_a_bound_says_nothing(filters):
    assert [inexact(filters, epsilon, 1e-2)[2].bound < float("inf") for epsilon in (1.0, 1.01)] == [True, False]


@pytest.mark.parametrize("name", ["quadratic", "denoising", "filters", "ridge"])
def test_the_bound_is_never_below_the_error(name, request):
    problem = ridge("pixel")[0] if name == "ridge" else request.getfixturevalue(name)
    *_, exact = inexact(problem, 1e-11, 1e-12)
    shares = []
    for epsilon in (1.0, 1e-1, 1e-3, 1e-5):
        for delta in (1e-1, 1e-4, 1e-8):
            *_, found = inexact(problem, epsilon, delta)
            shares.append(float((found.z - exact.z).norm()) / found.bound)
    assert 0 < max(shares) <= 1
    # The control: without the share of ε the bound is wrong.
    x, _, found = inexact(problem, 1e-1, 1e-8)
    alone = hypergradient(problem, x, problem.start[1], 0.0, 1e-8, torch.zeros_like(x))[0]
    assert float((found.z - exact.z).norm()) > alone.bound


def test_upper_bounds_hold(quadratic, denoising):
    for problem in (quadratic, denoising):
        for epsilon in (1.0, 1e-2):
            x, exact, _ = inexact(problem, epsilon, 1e-2)
            lowest, highest = upper_bounds(problem, x, epsilon)
            assert lowest <= float(problem.upper(exact)) <= highest


def test_conjugate_gradients_stop_at_the_residual():
    matrix = torch.diag(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))
    right = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    found, products = conjugate_gradients(lambda q: matrix @ q, right, 1e-12, torch.zeros_like(right))
    torch.testing.assert_close(matrix @ found, right)
    assert products <= 4
    nothing, none = conjugate_gradients(lambda q: matrix @ q, 0 * right, 1e-12, right)
    assert none == 0
    assert not nothing.any()  # not where it started, as the authors' code has it
    loose, fewer = conjugate_gradients(lambda q: matrix @ q, right, 1.0, torch.zeros_like(right))
    assert fewer < products
    assert float((matrix @ loose - right).norm()) <= 1.0


def test_accepted_steps_lower_the_exact_loss(denoising):
    method, losses = Maid(max_cost=250, step_size=30.0), []
    method.begin(denoising, 0)
    while not method.done:
        losses.append(float(denoising.upper(denoising.solved(method.theta, method.x, 1e-10).x)))
        before = method.accepted
        method.step()
        if method.accepted == before:
            break
    assert len(losses) > 5
    assert losses == sorted(losses, reverse=True)
    assert method.outcome["epsilon"] < 0.1  # it began too loose to be certain


@pytest.mark.parametrize("kind", KINDS)
def test_goes_on_where_it_was(kind, denoising, tmp_path):
    options = {"max_cost": 150, "epsilon": 1e-2, "step_size": 30.0}
    whole, method = finished(kind(**options), denoising), kind(**options)
    method.begin(denoising, 0)
    method.step()
    torch.save(method.state_dict(), tmp_path / "state")
    again = kind(**options)
    again.begin(denoising, 0)
    again.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    while not again.done:
        again.step()
    assert torch.equal(again.theta, whole.theta)
    assert again.outcome == whole.outcome
    if kind is Maid:
        whole.leave_files(tmp_path)
        assert (tmp_path / "convergence.png").is_file()


def test_a_fixed_accuracy_that_is_too_loose_takes_no_step(denoising):
    method = finished(FixedAccuracy(epsilon=1.0, delta=0.1), denoising)
    assert (method.accepted, method.outcome["stopped"]) == (0, "no step")
    assert finished(Maid(epsilon=1.0, delta=0.1, max_cost=250), denoising).accepted > 5


def test_schedules_differ(quadratic):
    accuracies = {}
    for schedule in ("geometric", "quadratic", "cubic"):
        method = Hoag(schedule)
        method.begin(quadratic, 0)
        for _ in range(3):
            method.step()
        accuracies[schedule] = method.epsilon
    assert accuracies == pytest.approx({"geometric": 0.1 * 0.9**3, "quadratic": 0.1 / 9, "cubic": 0.1 / 27})


@pytest.mark.proof
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_accuracy_and_step_begin_does_not_matter(seed):
    """n = 1000, m = 10, a budget of 10,000. Measured gaps for seeds 0-2: 2.70e-4-2.75e-4, 7.68e-4-7.89e-4 and
    4.40e-4-4.48e-4 from six starts; with a fixed ε of 0.1 2.8e-2, 6.9e-2 and 8.1e-2. It is not always the best: a fixed
    ε of 1e-5 has 3.2e-4, 7.4e-4 and 4.2e-4, HOAG's quadratic schedule 2.7e-4, 1.04e-3 and 4.4e-4.
    """
    problem = BilevelQuadratic().load(seed)

    def gap(method):
        return problem.evaluate(finished(method, problem).solution())["gap"]

    starts = [(epsilon, size) for epsilon in (1e-1, 1e-3, 1e-5) for size in (1e-2, 1.0)]
    gaps = [gap(Maid(epsilon, epsilon, size, max_cost=10_000)) for epsilon, size in starts]
    assert max(gaps) <= 1.1 * min(gaps)
    assert gap(FixedAccuracy(0.1, 0.1, 1.0, max_cost=10_000)) > 2 * max(gaps)


@pytest.mark.proof
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_many_ridge_weights_beat_the_best_single_one(seed):
    """Validation loss. Measured for seeds 0-2: 0.175, 0.168, 0.188 with the best single weight, near exp(-9); HOAG from
    exp(-6) 0.125, 0.138, 0.145 with one for each pixel and 0.117, 0.137, 0.131 for each entry. MAID, whose bounds grow
    with 1/μ², has 0.164, 0.173, 0.184 for pixels with the same cost, which is no better than the best single one."""
    single = LogisticRidge(weight_for="all").load(seed)
    x, losses = single.start[0], []
    for value in range(-6, -13, -1):
        x = single.solved(torch.tensor([value], dtype=torch.float64), x, 1e-2).x
        losses.append(float(single.upper(x)))
    assert 0 < losses.index(min(losses)) < 6  # within the grid
    for weight_for in ("pixel", "entry"):
        problem = LogisticRidge(start=-6.0, weight_for=weight_for).load(seed)
        method = finished(Hoag(step_size=100.0, max_cost=10_000), problem)
        assert float(problem.upper(method.x)) < 0.9 * min(losses)


@pytest.mark.proof
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_weight_of_total_variation_is_that_of_a_grid(seed):
    """Measured: log weights -2.586, -3.248, -2.716, at the best of the grid of step 0.05 to within half a step."""
    problem = TotalVariation(4, 32, 0.1, 0.05, 0.01).load(seed)
    x, grid = problem.start[0], torch.linspace(-3.5, -2, 31, dtype=torch.float64)
    losses = [float(problem.upper(problem.solved(value[None], x, 1e-5).x)) for value in grid]
    method = finished(Maid(step_size=10.0), problem)
    assert float(method.solution()[0]) == pytest.approx(float(grid[losses.index(min(losses))]), abs=0.03)
    found = problem.evaluate(method.solution())
    assert found["upper_loss"] <= min(losses) + 1e-8
    assert found["psnr"] > found["noisy_psnr"] + 4


@pytest.mark.proof
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_learned_filters_denoise_better_than_weights_of_fixed_ones(seed):
    """Eight crops of 24 × 24 pixels, HOAG with a budget of 600. Measured for seeds 0-2, upper losses in 1e-3: 1.20,
    2.32, 1.61 with filters, 1.33, 2.33, 1.64 without; of other crops 24.4, 24.0, 26.5 dB and 24.2, 23.9, 26.1 dB."""
    found = {}
    for learn in ("weights", "filters"):
        problem = FieldsOfExperts(8, 24, 0.1, 0.05, 0.01, learn=learn).load(seed)
        found[learn] = problem.evaluate(finished(Hoag(step_size=100.0, max_cost=600), problem).solution())
    assert found["filters"]["upper_loss"] < found["weights"]["upper_loss"]
    assert found["filters"]["psnr"] > found["weights"]["psnr"]
