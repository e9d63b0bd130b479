"""DONE: weights by the worst-case distribution, the smooth attack, and how the attack's answer follows the weights."""

import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torch.nn import functional as F

from fisherexp.data.batch import Batch
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.barrier_attack import (
    Box,
    barrier_attack,
    barrier_curvature,
    box_around,
    linear_optimum,
    with_implicit_gradient,
)
from fisherexp.methods.training.done import DONE
from fisherexp.models.classifier import Classifier
from fisherexp.models.mlp import MLP

RADIUS, BARRIER = 0.2, 0.1


def made(**options):
    torch.manual_seed(0)
    model = Classifier(MLP([16], input_shape=(1, 4, 4)), 16, 5).double()
    return DONE(model, Recipe(), **options).double()


torch.manual_seed(0)
BATCH = Batch(torch.rand(12, 1, 4, 4, dtype=torch.float64), torch.randint(5, (12,)))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_the_worst_case_distribution_is_the_softmax_and_its_value_the_log_mean_exp(temperature):
    """Against a numerical solver, over the free logits of a distribution."""
    losses = torch.tensor([0.2, 1.5, 0.7, 3.0], dtype=torch.float64)

    def negative(logits):
        w = torch.tensor(logits, requires_grad=True)
        p = w.softmax(0)
        value = -(p * losses).sum() + temperature * (p * (4 * p).log()).sum()
        return value.item(), torch.autograd.grad(value, w)[0].numpy()

    found = minimize(negative, [0.0] * 4, jac=True, tol=1e-12)
    best = torch.tensor(found.x).softmax(0)
    torch.testing.assert_close(best, (losses / temperature).softmax(0), rtol=1e-4, atol=1e-6)
    assert -found.fun == pytest.approx(temperature * (losses / temperature).exp().mean().log().item(), abs=1e-8)


def gradient_of(method, value):
    return torch.autograd.grad(value, [method.model.head.weight])[0]


def test_without_an_average_the_gradient_is_that_of_the_log_mean_exp():
    method = made(temperature=0.5, momentum=0.0, implicit=False)
    losses = method.attacked_losses(BATCH)
    expected = gradient_of(method, 0.5 * (losses / 0.5).exp().mean().log())
    torch.testing.assert_close(gradient_of(method, method.loss(BATCH)), expected)


def test_with_an_average_it_is_divided_by_that():
    method = made(temperature=0.5, momentum=0.9, implicit=False)
    method.log_average.fill_(2.0)
    losses = method.attacked_losses(BATCH)
    average = 0.9 * torch.tensor(2.0).exp() + 0.1 * (losses.detach() / 0.5).exp().mean()
    weights = (losses.detach() / 0.5).exp() / average
    found = gradient_of(method, method.loss(BATCH))
    torch.testing.assert_close(found, gradient_of(method, (weights * losses).mean()))
    torch.testing.assert_close(method.log_average, average.log())


def test_a_large_temperature_counts_all_alike_a_small_one_the_worst_alone():
    method = made(implicit=False)
    losses = method.attacked_losses(BATCH)
    mean, worst = gradient_of(method, losses.mean()), None
    method.temperature = 1e6
    torch.testing.assert_close(gradient_of(method, method.loss(BATCH)), mean, rtol=1e-4, atol=1e-7)
    method = made(temperature=1e-3, momentum=0.0, implicit=False)
    worst = gradient_of(method, method.attacked_losses(BATCH).max())
    torch.testing.assert_close(gradient_of(method, method.loss(BATCH)), worst, rtol=1e-3, atol=1e-6)


def test_a_loss_of_hundreds_overflows_nothing():
    method = made(temperature=1e-3)
    method.log_average.fill_(0.0)
    assert method.loss(BATCH).isfinite()
    assert method.log_average.isfinite()


# --- the attack ----------------------------------------------------------------------------------------


def box_of(inputs):
    return Box(inputs - RADIUS, inputs + RADIUS)


def test_the_box_holds_images_near_the_given_ones():
    box = box_around(torch.tensor([[0.0, 0.05, 0.5, 1.0]]), 0.1)
    torch.testing.assert_close(box.low, torch.tensor([[0.0, 0.0, 0.4, 0.9]]))
    torch.testing.assert_close(box.high, torch.tensor([[0.1, 0.15, 0.6, 1.0]]))


def barrier_slope(images, box):
    return BARRIER * (1 / (box.high - images) - 1 / (images - box.low))


def test_the_optimum_of_a_linear_loss_is_inside_the_box_and_stationary():
    slope = torch.tensor([0.0, 1e-3, -0.5, 4.0, -300.0], dtype=torch.float64)
    box = box_around(torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64), RADIUS)
    found = linear_optimum(slope, box, BARRIER)
    assert ((box.low < found) & (found < box.high)).all()
    torch.testing.assert_close(barrier_slope(found, box), slope, rtol=1e-6, atol=1e-9)
    step = 1e-7
    curvature = (barrier_slope(found + step, box) - barrier_slope(found - step, box)) / (2 * step)
    torch.testing.assert_close(barrier_curvature(found, box, BARRIER)[:4], curvature[:4], rtol=1e-4, atol=0)


def smooth():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 3)).double()
    inputs, labels = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    return net, inputs, lambda x: F.cross_entropy(net(x), labels, reduction="none")


def answer(losses, inputs):
    return barrier_attack(losses, inputs, box_of(inputs), BARRIER, steps=60, part=0.5)


def test_the_answer_of_a_smooth_network_is_stationary_and_worse():
    _, inputs, losses = smooth()
    worst, box = answer(losses, inputs).requires_grad_(), box_of(inputs)
    assert ((box.low < worst) & (worst < box.high)).all()
    (slope,) = torch.autograd.grad(losses(worst).sum(), [worst])
    torch.testing.assert_close(barrier_slope(worst, box), slope)
    assert (losses(worst) > losses(inputs)).all()


def gradients(losses, inputs, weight):
    """Of the loss at the answer of the attack: by finite differences, as the method has it, and without the share of
    the answer."""
    differences, step = torch.zeros_like(weight), 1e-5
    for place in range(weight.numel()):
        for sign in (1, -1):
            with torch.no_grad():
                weight.view(-1)[place] += sign * step
            differences.view(-1)[place] += sign * losses(answer(losses, inputs)).sum().item() / (2 * step)
            with torch.no_grad():
                weight.view(-1)[place] -= sign * step
    worst = answer(losses, inputs)
    implicit = with_implicit_gradient(losses, worst, box_of(inputs), BARRIER)
    found = [torch.autograd.grad(each.sum(), [weight])[0] for each in (implicit, losses(worst))]
    return differences, *found


def test_how_the_answer_follows_the_weights_is_exact_where_the_loss_has_no_curvature_in_the_image():
    torch.manual_seed(0)
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(3, 5, dtype=torch.float64)
    expected, found, explicit = gradients(lambda x: x @ weight.sin(), inputs, weight)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert (found - explicit).norm() > 0.02 * found.norm()  # the control


def test_of_a_smooth_network_it_is_nearly_right():
    net, inputs, losses = smooth()
    expected, found, explicit = gradients(losses, inputs, net[2].bias)
    assert (found - expected).norm() < 0.2 * (explicit - expected).norm()
