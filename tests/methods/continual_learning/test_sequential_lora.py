"""Low-rank adapters: what they train, and that merging changes nothing."""

import pytest
import torch
from torch import nn

from fisherexp import adapters
from fisherexp.methods.continual_learning.sequential_lora import attach, updates

torch.manual_seed(0)
IMAGES = torch.randn(9, 6)


@pytest.fixture
def net():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def stir(model):
    """Adapters that do something."""
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.normal_()


def test_fresh_adapters_leave_the_outputs_as_they_were(net):
    before = net(IMAGES)
    attach(net, rank=2, alpha=4)
    assert torch.equal(net(IMAGES), before)
    trained = sorted(name for name, p in net.named_parameters() if p.requires_grad)
    assert len(trained) == 4
    assert all(".adapters.0." in f".{name}" for name in trained)


@pytest.mark.parametrize("count", [1, 2])
def test_merged_weights_give_the_same_logits(net, count):
    weight = net[0].weight.detach().clone()
    attach(net, rank=2, alpha=4, per_layer=count)
    stir(net)
    adapted, found = net(IMAGES), updates(net)
    assert [len(each) for each in found.values()] == [count, count]
    assert all(torch.linalg.matrix_rank(one) == 2 for one in found["0"])
    adapters.merge(net)
    assert not updates(net)
    torch.testing.assert_close(net(IMAGES), adapted)
    torch.testing.assert_close(net[0].weight, weight + sum(found["0"]))


def test_the_scale_is_alpha_over_rank(net):
    attach(net, rank=2, alpha=6)
    stir(net)
    one = net[0].adapters[0]
    torch.testing.assert_close(one.update(), 3.0 * one.up @ one.down)


def test_layers_that_are_frozen_get_none(net):
    net[2].weight.requires_grad_(False)
    attach(net, rank=2, alpha=4)
    assert set(updates(net)) == {"0"}


def fitted(bench, folder):
    method = bench.method("method")
    bench.fit(method, folder, "fit")
    return method


def test_later_tasks_move_weights_by_no_more_than_the_rank_and_nothing_else(make_bench, tmp_path):
    """Two further tasks of rank 2 each; the first one trains everything."""
    options = ("method.rank=2", "model.hidden=[16,16]")
    bench, still = make_bench("sequential_lora", *options), make_bench("sequential_lora", *options, "method.lr=1e-30")
    whole = fitted(bench, tmp_path / "whole").model.state_dict()
    first_only = fitted(still, tmp_path / "first").model.state_dict()
    assert set(whole) == set(bench.method("method").model.state_dict())
    for name, tensor in whole.items():
        moved = tensor - first_only[name]
        if name.endswith("layers.3.weight"):
            # Beyond rank 4 there is rounding only.
            values = torch.linalg.svdvals(moved)
            assert values[3] > 1e-3 > 1e-5 > values[4]
        elif not name.endswith("weight"):
            assert torch.equal(moved, torch.zeros_like(moved)), name
