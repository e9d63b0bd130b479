"""Normalization layers at test time, against their definitions in float64."""

import pytest
import torch
from torch import nn

from fisherexp.methods.test_time_adaptation.norms import (
    MixedBatchNorm,
    affine_parameters,
    mix_statistics,
    set_mixing,
    use_batch_statistics,
)

torch.manual_seed(0)
X = 2 + 3 * torch.randn(6, 4, 5, 5, dtype=torch.float64)


def trained_norm() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(4).double()
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.copy_(0.5 + torch.rand(4))
    return norm.eval()


def normalized(x, mean, var, norm):
    shape = (1, -1, 1, 1)
    scaled = (x - mean.view(shape)) / (var.view(shape) + norm.eps).sqrt()
    return scaled * norm.weight.view(shape) + norm.bias.view(shape)


def test_affine_parameters_of_every_kind_of_layer():
    layers = {"one": nn.BatchNorm1d(2), "two": nn.BatchNorm2d(2), "three": nn.BatchNorm3d(2)}
    layers |= {"layer": nn.LayerNorm(2), "group": nn.GroupNorm(1, 2), "plain": nn.BatchNorm2d(2, affine=False)}
    layers |= {"linear": nn.Linear(2, 2), "stages": nn.ModuleList([nn.BatchNorm1d(2) for _ in range(11)])}
    model = nn.ModuleDict(layers)
    kept = {"one", "two", "three", "layer", "group", *(f"stages.{i}" for i in range(11))}
    assert {name.rpartition(".")[0] for name in affine_parameters(model)} == kept
    assert {name.rpartition(".")[0] for name in affine_parameters(model, ["stages.1", "layer"])} == kept - {
        "stages.1",  # and not stages.10
        "layer",
    }


def test_batch_statistics_in_eval_mode_and_none_in_the_state():
    norm = trained_norm()
    expected = normalized(X, X.mean((0, 2, 3)), X.var((0, 2, 3), correction=0), norm)
    use_batch_statistics(norm)
    for mode in (True, False):
        torch.testing.assert_close(norm.train(mode)(X), expected)
    assert set(norm.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("remember", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixture_of_stored_and_batch_statistics(share, remember):
    norm = trained_norm()
    mean = (1 - share) * norm.running_mean + share * X.mean((0, 2, 3))
    var = (1 - share) * norm.running_var + share * X.var((0, 2, 3), correction=int(not remember))
    mixed = MixedBatchNorm(norm, share, remember).eval()
    torch.testing.assert_close(mixed(X), normalized(X, mean, var, norm))
    stored = (mean, var) if remember else (norm.running_mean, norm.running_var)
    torch.testing.assert_close((mixed.running_mean, mixed.running_var), stored)
    assert set(mixed.state_dict()) == set(norm.state_dict())


def test_without_mixing_it_is_the_stored_norm_and_changes_nothing():
    model = nn.Sequential(trained_norm())
    expected, before = model(X), {name: t.clone() for name, t in model.state_dict().items()}
    mix_statistics(model, 0.3, remember=True)
    set_mixing(model, False)
    assert torch.equal(model(X), expected)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("remember", [False, True])
def test_activations_inside_a_norm_stay(remember):
    """timm's networks have layers that normalize, drop and activate in one."""
    layer = pytest.importorskip("timm.layers").BatchNormAct2d(4, act_layer=nn.PReLU, act_kwargs={"init": 0.1})
    model = nn.Sequential(layer).double()
    layer.load_state_dict(trained_norm().state_dict(), strict=False)
    expected, names = model.eval()(X), set(model.state_dict())
    assert (expected < 0).any()
    mix_statistics(model, 0.3, remember)
    set_mixing(model, False)
    torch.testing.assert_close(model.eval()(X), expected)
    assert set(model.state_dict()) == names
    set_mixing(model, True)
    norm = trained_norm()
    norm.load_state_dict({name: tensor for name, tensor in model[0].state_dict().items() if "act" not in name})
    plain = MixedBatchNorm(norm, 0.3, remember)(X)
    torch.testing.assert_close(model(X), torch.where(plain < 0, 0.1 * plain, plain))


def test_gradients_go_through_remembered_statistics_alone():
    weight = torch.randn_like(X)
    for remember in (True, False):
        norm, x = trained_norm(), X.clone().requires_grad_()
        batch = x if remember else x.detach()
        mean = 0.7 * norm.running_mean + 0.3 * batch.mean((0, 2, 3))
        var = 0.7 * norm.running_var + 0.3 * batch.var((0, 2, 3), correction=int(not remember))
        (expected,) = torch.autograd.grad((weight * normalized(x, mean, var, norm)).sum(), x)
        (found,) = torch.autograd.grad((weight * MixedBatchNorm(norm, 0.3, remember)(x)).sum(), x)
        torch.testing.assert_close(found, expected)


def test_one_value_per_channel_is_refused():
    for layer in (MixedBatchNorm(trained_norm(), 0.1, True), MixedBatchNorm(trained_norm(), 0.1, False)):
        with pytest.raises(ValueError, match="no statistics"):
            layer(torch.zeros(1, 4, 1, 1, dtype=torch.float64))
