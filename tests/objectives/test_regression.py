"""Regression: value and gradient in closed form, and the Gaussian density it is the logarithm of."""

import math

import pytest
import torch

from fisherexp.objectives.regression import Regression

torch.manual_seed(0)
OUTPUTS, NUMBERS = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
OBJECTIVE = Regression(3)


def test_loss_is_half_the_squared_distance():
    expected = [sum((OUTPUTS[n, k].item() - NUMBERS[n, k].item()) ** 2 for k in range(3)) / 2 for n in range(7)]
    assert OBJECTIVE.sample_losses(OUTPUTS, NUMBERS).tolist() == pytest.approx(expected)
    assert OBJECTIVE.loss(OUTPUTS, NUMBERS).item() == pytest.approx(sum(expected) / 7)
    assert OBJECTIVE.loss(OUTPUTS, NUMBERS, reduction="sum").item() == pytest.approx(sum(expected))


def test_gradient_is_the_residual():
    outputs = OUTPUTS.clone().requires_grad_()
    (found,) = torch.autograd.grad(OBJECTIVE.loss(outputs, NUMBERS, reduction="sum"), outputs)
    torch.testing.assert_close(found, OUTPUTS - NUMBERS)


def test_it_is_minus_the_log_density_of_unit_variance_up_to_a_constant():
    density = torch.distributions.Normal(OUTPUTS, 1.0).log_prob(NUMBERS).sum(1)
    gap = OBJECTIVE.sample_losses(OUTPUTS, NUMBERS) + density
    torch.testing.assert_close(gap, torch.full_like(gap, -1.5 * math.log(2 * math.pi)))


@pytest.mark.parametrize("shape", [(7,), (7, 1), (1, 3)])
def test_numbers_of_another_shape_are_refused(shape):
    """torch would spread them: a loss of the right size, of the wrong pairs."""
    with pytest.raises(ValueError, match="must have the shape of outputs"):
        OBJECTIVE.loss(OUTPUTS, torch.zeros(shape, dtype=torch.float64))


def test_metrics_are_of_as_many_numbers():
    metrics = OBJECTIVE.metrics(("test",))
    metrics.update(0, OUTPUTS, NUMBERS)
    assert metrics.compute()["test_rmse"] == pytest.approx((OUTPUTS - NUMBERS).square().mean().sqrt().item())
