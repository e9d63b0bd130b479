"""BackSlash: its step against gradients of the penalty, and what is stored of a training on digits."""

import pytest
import torch
from torch import nn

from fisherexp.methods.compression.back_slash import BackSlash, shrinkage
from fisherexp.methods.compression.entropy_coding import decoded
from fisherexp.methods.compression.generalized_gaussian import estimated_shape
from fisherexp.methods.recipe import Recipe

WEIGHTS = torch.tensor([-2.0, -0.3, 0.0, 0.01, 1.0], dtype=torch.float64)


@pytest.mark.parametrize(("shape", "offset"), [(2.0, 1e-12), (1.0, 1e-12), (0.5, 1.0), (1.4, 0.1)])
def test_shrinkage_is_the_gradient_of_the_penalty(shape, offset):
    weights = WEIGHTS[WEIGHTS != 0].requires_grad_()
    ((weights.abs() + offset) ** shape).sum().backward()
    torch.testing.assert_close(shrinkage(weights.detach(), shape, offset), weights.grad)


def test_shrinkage_of_zero_is_zero_and_of_shape_two_that_of_decay():
    assert shrinkage(torch.zeros(1), 0.3, 1e-6) == 0
    torch.testing.assert_close(shrinkage(WEIGHTS, 2.0, 1e-12), 2 * WEIGHTS)


def method(**options) -> BackSlash:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 2))
    model[1].weight.data.pow_(3)  # of another shape
    given = {"strength": 0.01, "shape": None, "offset": 1.0, "by": "model", "free": 0.2}
    return BackSlash(model, **(given | options), training=Recipe(epochs=10), fraction_bits=6)


@pytest.mark.parametrize("by", ["model", "layer"])
def test_one_step_is_at_the_shape_before_it(by):
    moved = method(by=by)
    before = [parameter.detach().clone() for parameter in moved.model.parameters()]
    moved.shrink()
    for old, new in zip(before, moved.model.parameters(), strict=True):
        shape = estimated_shape(before if by == "model" else [old])
        torch.testing.assert_close(new.detach(), old - 0.01 * shrinkage(old, shape, 1.0))
    assert estimated_shape(before) != estimated_shape([before[2]])  # so that `by` shows


def test_a_shape_that_is_given_is_not_estimated_and_the_last_epochs_are_free():
    moved = method(shape=1.0)
    before = moved.model[0].weight.detach().clone()
    moved.shrink()
    torch.testing.assert_close(moved.model[0].weight.detach(), before - 0.01 * before.sign())
    assert moved.priced_epochs == 8
    moved.model[0].bias.data.zero_()
    moved.by, moved.shape = "layer", None
    moved.shrink()
    assert (moved.model[0].bias == 0).all()


def test_what_is_stored_is_what_is_evaluated_and_a_price_makes_it_smaller(fitted, tmp_path):
    sizes = []
    for strength in (0.0, 3e-3):
        fit, _, _ = fitted("back_slash", f"method.strength={strength}", "method.training.epochs=3")
        fit.leave_files(tmp_path)
        stored = (tmp_path / "weights.golomb").read_bytes()
        state = fit.model.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in decoded(stored).items())
        assert fit.outcome["metrics"]["stored_bytes"] == len(stored)
        sizes.append(len(stored))
    assert sizes[1] < 0.9 * sizes[0]
