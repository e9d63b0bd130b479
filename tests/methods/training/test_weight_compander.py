"""Companded weights: the function and its inverse, the first step, what is left at the end, and the distribution."""

import copy

import pytest
import torch
from torch import nn

from fisherexp import run
from fisherexp.methods.training.companding import (
    COMPONENTS,
    Compander,
    compand,
    companders,
    uncompand,
    weight_statistics,
)

BOUNDS = {"arctan": 0.2 * torch.pi / 2, "tanh": 0.2, "arctan_tanh": 0.1 * (torch.pi / 2 + 1)}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 4, 4)).double()


INPUTS = torch.randn(5, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("psi", COMPONENTS)
def test_the_function_is_odd_bounded_and_as_steep_as_it_says(psi):
    function = Compander(psi, 0.2, 0.05, learned=False).double()
    v = torch.linspace(-0.5, 0.5, 101, dtype=torch.float64)
    torch.testing.assert_close(function(-v), -function(v))
    assert (function(v).diff() > 0).all()
    assert function.bound == pytest.approx(BOUNDS[psi])
    assert function(1e6 * v).abs().max().item() == pytest.approx(BOUNDS[psi], rel=1e-5)
    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(function(zero), zero)
    assert slope.item() == pytest.approx(0.2 / 0.05)


@pytest.mark.parametrize("psi", COMPONENTS)
def test_the_inverse_gives_the_weight_back_and_clamps_beyond_the_bound(psi):
    function = Compander(psi, 0.2, 0.1, learned=False).double()
    weight = torch.linspace(-0.99, 0.99, 101, dtype=torch.float64) * BOUNDS[psi]
    torch.testing.assert_close(function(function.right_inverse(weight)), weight, rtol=1e-9, atol=1e-12)
    beyond = torch.tensor([BOUNDS[psi], -7.0], dtype=torch.float64)
    clamped = 0.999 * BOUNDS[psi] * torch.tensor([1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(function(function.right_inverse(beyond)), clamped)


@pytest.mark.parametrize(("width", "plain"), [(1e4, True), (0.5, False)])
def test_wide_and_of_slope_one_its_first_step_is_that_of_the_plain_network(width, plain):
    model, twin = network(), network()
    assert compand(twin, "arctan", width, width, "no") == 0
    stepped = []
    for net in (model, twin):
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        net(INPUTS).square().sum().backward()
        optimizer.step()
        uncompand(net)
        stepped.append(net.state_dict())
    same = all(torch.allclose(stepped[0][name], stepped[1][name], rtol=1e-5) for name in stepped[0])
    assert same == plain


def test_the_latent_gradient_is_that_of_the_weight_times_the_slope():
    plain, model = network(), network()
    compand(model, "tanh", 0.6, 0.2, "no")
    for net in (plain, model):
        net(INPUTS).square().sum().backward()
    latent = model[3].parametrizations.weight.original
    slope = 0.6 / 0.2 * (1 - torch.tanh(latent / 0.2) ** 2)
    torch.testing.assert_close(latent.grad, slope * plain[3].weight.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("learned", "number"), [("no", 1), ("network", 1), ("layer", 2)])
def test_only_weights_are_companded_and_outputs_stay_bit_equal_at_the_end(learned, number):
    model = network().eval()
    names = set(model.state_dict())
    before = copy.deepcopy(model)
    assert compand(model, "arctan", 0.4, 0.2, learned) == 0
    torch.testing.assert_close(model(INPUTS), before(INPUTS))
    assert len(companders(model)) == number
    trained = [p.requires_grad for found in companders(model) for p in found.parameters()]
    assert set(trained) == {learned != "no"}
    outputs = model(INPUTS)
    uncompand(model)
    assert torch.equal(model(INPUTS), outputs)
    assert set(model.state_dict()) == names
    assert torch.equal(model[3].bias, before[3].bias)
    assert torch.equal(model[1].weight, before[1].weight)


def test_weights_beyond_the_bound_are_counted():
    model = network()
    with torch.no_grad():
        model[3].weight[0, :3] = 5.0
    assert compand(model, "arctan", 0.4, 0.2, "no") == 3
    assert model[3].weight.detach().abs().max() < 0.4 * torch.pi / 2


def test_statistics_are_those_of_the_weights():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].weight.data = torch.tensor([[0.005, -0.5], [1.0, -0.505]])
    nn.init.constant_(model[1].weight, 100.0)  # no weight of a layer
    found = weight_statistics(model)
    assert found["max_weight"] == 1.0
    assert found["near_zero"] == 25.0
    expected = torch.tensor([0.005, -0.5, 1.0, -0.505]).double()
    assert found["kurtosis"] == pytest.approx(
        (expected**4).mean().item() / expected.square().mean().item() ** 2, rel=1e-6
    )


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(3))
def test_the_distribution_is_companded(seed, tmp_path):
    """On 200 digits: the largest weight is bounded, the kurtosis about half or less, fewer weights lie near zero.
    Accuracy stays within 2 points with each seed, which is no gain."""
    given = ["method=weight_compander", "data.train_size=200", "model.hidden=[128,128]", "training.epochs=150"]
    given += [f"seed={seed}", f"output_dir={tmp_path}", "progress=off", "threads=1"]
    plain, companded = (run(*given, f"method.psi={psi}")["metrics"]["after"] for psi in ("identity", "arctan"))
    assert companded["max_weight"] < 0.2 * torch.pi / 2 < plain["max_weight"]
    assert companded["kurtosis"] < 0.55 * plain["kurtosis"]
    assert companded["near_zero"] < plain["near_zero"]
    assert abs(companded["test_accuracy"] - plain["test_accuracy"]) < 2
