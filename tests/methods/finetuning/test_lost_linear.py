"""LOST's layer: the branches at the start, what is chosen, gradients, counts, and what it refuses."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.methods.finetuning.lost_linear import LostLinear, low_rank_and_columns, replace_linear


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(10, 6, dtype=torch.float64)


X = torch.randn(4, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_all_ranks_and_no_activation_are_the_dense_layer(layer):
    """γ = ½ and both branches doubled: B A = W, and the rest is zero."""
    whole = LostLinear(layer, rank=6, share=0.3, gamma=0.5, activation="none")
    with torch.no_grad():
        whole.up *= 2
        whole.dense *= 2
    torch.testing.assert_close(whole(X), layer(X))


def test_branches_add_up_to_the_weight_where_all_columns_are_dense(layer):
    """W = B A + rest: γ = ½ halves it."""
    both = LostLinear(layer, rank=2, share=1.0, gamma=0.5, activation="none")
    torch.testing.assert_close(2 * (both(X) - layer.bias) + layer.bias, layer(X))
    short = LostLinear(layer, rank=2, share=0.5, gamma=0.5, activation="none")  # the control
    assert not torch.allclose(2 * (short(X) - layer.bias) + layer.bias, layer(X))


def test_the_columns_are_the_longest_of_the_rest(layer):
    up, down, chosen, dense = low_rank_and_columns(layer.weight.detach(), 2, 3)
    rest = layer.weight.detach() - up @ down
    lengths = rest.square().sum(0)
    others = [i for i in range(10) if i not in chosen.tolist()]
    assert len(chosen) == 3
    assert lengths[chosen].min() > lengths[others].max()
    torch.testing.assert_close(dense, rest[:, chosen])
    of_weight = low_rank_and_columns(layer.weight.detach(), 2, 3, "weight")
    assert torch.equal(of_weight[2], chosen)
    assert torch.equal(of_weight[3], layer.weight[:, chosen])


def test_the_activation_is_silu(layer):
    made = LostLinear(layer, rank=3, share=0.2, gamma=0.7)
    low = F.silu(X @ made.down.T) @ made.up.T
    torch.testing.assert_close(made(X), 0.7 * low + 0.3 * X[:, made.columns] @ made.dense.T + layer.bias)


@pytest.mark.parametrize(("gamma", "still"), [(1.0, "dense"), (0.0, "up"), (0.7, None)])
def test_a_branch_without_weight_gets_no_gradient(gamma, still, layer):
    made = LostLinear(layer, rank=3, share=0.2, gamma=gamma)
    made(X).square().sum().backward()
    assert {name for name, p in made.named_parameters() if not p.grad.any()} == (
        {still, "down"} if still == "up" else {still} - {None}
    )


@pytest.mark.parametrize(("share", "columns"), [(0.0, 0), (0.01, 1), (0.2, 2), (1.0, 10)])
def test_how_many_numbers_it_has(share, columns, layer):
    made = LostLinear(layer, rank=3, share=share, gamma=0.7)
    assert sum(p.numel() for p in made.parameters()) == 3 * (6 + 10) + columns * 6 + 6
    assert made(X).shape == (4, 6)


def test_layers_are_replaced_by_name_or_refused_as_a_whole():
    model = nn.Sequential(nn.Linear(4, 5), nn.Sequential(nn.ReLU(), nn.Linear(5, 5)), nn.Linear(5, 2))
    options = {"rank": 2, "share": 0.0, "gamma": 0.5}
    assert replace_linear(model, "linear", "^2$", **options) == ["0", "1.1"]
    assert [type(m) for m in (model[0], model[1][1], model[2])] == [LostLinear, LostLinear, nn.Linear]
    other = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(1, 1, 1))
    before = copy.deepcopy(other)
    with pytest.raises(ValueError, match="for linear layers alone, not for 1"):
        replace_linear(other, "", None, **options)
    assert [type(m) for m in other] == [type(m) for m in before]
