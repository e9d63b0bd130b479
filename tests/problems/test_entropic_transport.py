"""The dual, its derivatives and its bounds: against autograd, the definitions and each other."""

import pytest
import torch
from torch.autograd.functional import hessian

from fisherexp.data.transport import TransportInstance, point_clouds
from fisherexp.methods.numerics.sinkhorn_newton import sparse_hessian
from fisherexp.problems.entropic_transport import (
    dual_gradient,
    dual_value,
    duality_gap,
    marginal_error,
    plan,
    primal_value,
    rounded_plan,
)


@pytest.fixture
def problem() -> TransportInstance:
    return point_clouds(6, 4, eta=7.0, seed=1)


@pytest.fixture
def potentials():
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=draw, dtype=torch.float64) * 0.1 for size in (6, 4)]


def joined(problem):
    return lambda both: dual_value(both[:6], both[6:], problem)


def test_value_follows_the_definition(problem, potentials):
    x, y = potentials
    expected = problem.a @ x + problem.b @ y
    for i in range(6):
        for j in range(4):
            expected = expected - torch.exp(problem.eta * (x[i] + y[j] - problem.cost[i, j]) - 1) / problem.eta
    assert dual_value(x, y, problem).item() == pytest.approx(expected.item(), rel=1e-13)


def test_gradient_is_that_of_autograd(problem, potentials):
    both = torch.cat(potentials).requires_grad_()
    (expected,) = torch.autograd.grad(joined(problem)(both), both)
    torch.testing.assert_close(torch.cat(dual_gradient(plan(*potentials, problem), problem)), expected)


def test_hessian_is_that_of_autograd(problem, potentials):
    expected = -hessian(joined(problem), torch.cat(potentials)) / problem.eta
    ours = sparse_hessian(plan(*potentials, problem))
    columns = [torch.cat(ours.matvec(unit[:6], unit[6:])) for unit in torch.eye(10, dtype=torch.float64)]
    torch.testing.assert_close(torch.stack(columns), expected)


def test_value_ignores_what_one_side_lends_the_other(problem, potentials):
    x, y = potentials
    moved = dual_value(x + 3, y - 3, problem)
    assert moved.item() == pytest.approx(dual_value(x, y, problem).item(), rel=1e-12)
    assert dual_value(x + 3, y, problem) != pytest.approx(moved.item(), rel=1e-3)  # control


@pytest.mark.parametrize("seed", range(3))
def test_rounding_fits_the_marginals_and_moves_little(problem, seed):
    wrong = torch.rand(6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    wrong = wrong / wrong.sum()
    right = rounded_plan(wrong, problem)
    assert (right >= 0).all()
    assert marginal_error(right, problem) < 1e-15
    assert (right - wrong).abs().sum() <= 2 * marginal_error(wrong, problem)
    assert torch.equal(rounded_plan(right, problem).isfinite(), torch.ones(6, 4, dtype=bool))


def test_every_dual_value_is_below_every_feasible_objective(problem, potentials):
    product = torch.outer(problem.a, problem.b)
    assert dual_value(*potentials, problem) < primal_value(product, problem)
    assert duality_gap(*potentials, problem) > 0


def test_empty_entries_have_no_entropy(problem):
    assert primal_value(torch.zeros(6, 4, dtype=torch.float64), problem) == 0
