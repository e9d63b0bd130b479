"""Weights from elsewhere into a network: what fits is taken, and only a head may stay new."""

import pytest
import torch

from fisherexp.models.classifier import Classifier
from fisherexp.models.mlp import MLP
from fisherexp.models.weights import load_matching, unwrapped


def network(classes: int = 3, hidden: int = 4, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(MLP([hidden], input_shape=(1, 2, 2)), hidden, classes, mean=[0.3], std=[0.5])


def renamed(state: dict, prefix: str) -> dict:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_names_of_the_whole_and_behind_a_prefix(prefix):
    model, other = network(), network(seed=1)
    assert load_matching(model, renamed(other.state_dict(), prefix)) == []
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in model.state_dict().items())


def test_a_backbone_alone_keeps_head_and_constants():
    model, other = network(), network(seed=1)
    head = model.head.weight.clone()
    assert load_matching(model, other.backbone.state_dict()) == ["mean", "std", "head.weight", "head.bias"]
    assert torch.equal(model.backbone.layers[1].weight, other.backbone.layers[1].weight)
    assert torch.equal(model.head.weight, head)


def test_a_head_for_other_classes_stays_new():
    model = network(3)
    head = model.head.weight.clone()
    assert load_matching(model, network(5, seed=1).state_dict()) == ["head.weight", "head.bias"]
    assert torch.equal(model.head.weight, head)


@pytest.mark.parametrize("state", [network(hidden=5).state_dict(), {}, {"other.weight": torch.ones(2)}])
def test_anything_else_that_does_not_fit_is_named_and_nothing_is_loaded(state):
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"nothing for backbone.layers.1.weight, backbone.layers.1.bias$"):
        load_matching(model, state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "lr": 1}, lambda s: {"model": {"state_dict": s}}]
)
def test_tensors_are_found_in_their_wrappers(wrap):
    state = {"a": torch.ones(2), "b": torch.zeros(1)}
    assert unwrapped(wrap(state)).keys() == state.keys()
    assert unwrapped(wrap(state | {"name": "x"})).keys() == state.keys()


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"state_dict": {"a": 1}}])
def test_where_there_are_no_tensors(content):
    with pytest.raises(ValueError, match="holds no tensors by name"):
        unwrapped(content)
