"""SCL: gradients through the step, the masks' own step, and what a training with it leaves."""

import pytest
import torch
from torch import nn

from fisherexp.adapters import inject
from fisherexp.adapters.connectivity import Connectivity, mask_step


def sparse() -> tuple[nn.Linear, Connectivity]:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4).double()
    inject(layer, lambda name, _: True, lambda weight: Connectivity(weight, start=0.5), trained="")
    (adapter,) = layer.adapters
    with torch.no_grad():
        adapter.mask[:, ::2] = -0.5
    return layer, adapter


def test_gradients_of_mask_and_weight_are_those_of_the_definition():
    layer, adapter = sparse()
    x, y = torch.randn(9, 6, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    nn.functional.mse_loss(layer(x), y).backward()
    weight = layer.frozen_weight.detach()
    effective = (weight * (adapter.mask > 0)).requires_grad_()
    nn.functional.mse_loss(nn.functional.linear(x, effective, layer.bias.detach()), y).backward()
    torch.testing.assert_close(adapter.mask.grad, weight * effective.grad)
    torch.testing.assert_close(layer.frozen_weight.grad, effective.grad * (adapter.mask > 0))
    assert adapter.mask.grad[:, ::2].abs().min() > 0  # what is gone may come back
    assert adapter.connections() == 12


def test_a_mask_that_stands_still_is_a_sparse_layer():
    layer, _ = sparse()
    before = layer(torch.ones(1, 6, dtype=torch.float64))
    layer.merge()
    assert (layer.weight[:, ::2] == 0).all()
    torch.testing.assert_close(layer(torch.ones(1, 6, dtype=torch.float64)), before)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_step_normalizes_rows_and_then_adds_the_price(normalize):
    mask, gradient = torch.zeros(3, 4), torch.tensor([[3.0, -4, 0, 0], [0, 0, 0, 0], [1000.0, 0, 0, 0]])
    found = mask_step(mask, gradient, lr=0.5, price=0.1, normalize=normalize)
    if normalize:
        expected = [[-0.35, 0.35, -0.05, -0.05], [-0.05] * 4, [-0.55, -0.05, -0.05, -0.05]]
    else:
        expected = [[-1.0, 1.0, -0.05, -0.05], [-0.05] * 4, [-1.0, -0.05, -0.05, -0.05]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_a_layer_that_is_never_called_pays_the_price_alone():
    _, adapter = sparse()
    before = adapter.mask.detach().clone()
    adapter.step(0.5, 0.1, normalize=True)
    torch.testing.assert_close(adapter.mask.detach(), before - 0.05)


def test_training_leaves_an_ordinary_model_with_the_connections_that_it_counts(fitted):
    options = ["method.training.epochs=2", "method.price=0.2", "method.mask_lr=0.1"]
    fit, source, _ = fitted("scl", *options)
    state, found = fit.model.state_dict(), fit.outcome
    assert state.keys() == source.keys()
    hidden = {"backbone.layers.1": 16 * 64, "backbone.layers.3": 16 * 16}
    assert found["connections_by_layer"].keys() == hidden.keys()  # not the head
    density = 100 * sum(found["connections_by_layer"].values()) / sum(hidden.values())
    assert found["metrics"]["density"] == density < 80
    for name, connections in found["connections_by_layer"].items():
        assert state[f"{name}.weight"].count_nonzero() <= connections  # some are rounded to zero
        assert found["multiply_adds_by_layer"][name] == state[f"{name}.weight"].count_nonzero()


def test_without_price_nothing_goes_and_everything_is_trained(fitted):
    fit, source, _ = fitted("scl", "method.training.epochs=1", "method.price=0.0", "method.mask_lr=1e-6")
    assert fit.outcome["metrics"]["density"] == 100
    assert not torch.equal(fit.model.state_dict()["head.weight"], source["head.weight"])
