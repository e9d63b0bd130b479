"""SST: identity, gradients by hand, what moves, what a draw and a decomposition leave, what an optimizer forgets."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from fisherexp.adapters import SST, adapters, after_step, forget_resampled, inject, merge
from fisherexp.adapters.sst import probabilities


def near(one, other):
    torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


@pytest.fixture
def weight():
    torch.manual_seed(0)
    return torch.randn(6, 9, dtype=torch.float64)


def test_it_begins_as_the_weight_and_counts_what_it_trains(weight):
    adapter = SST(weight, rank=2)
    near(adapter.weight(weight), weight)
    assert adapter.num_trainable() == 6 + 2 * (6 + 9)
    assert len(set(adapter.sampled.tolist())) == 2


@pytest.mark.parametrize("enhanced", [True, False])
def test_gradients_by_hand_and_by_autograd(enhanced, weight):
    """G vᵢ and Gᵀ uᵢ; the true ones have the factor sᵢ besides."""
    adapter, gradient = SST(weight, rank=3, enhanced=enhanced), torch.randn_like(weight)
    (gradient * adapter.weight(weight)).sum().backward()
    s = torch.linalg.svdvals(weight)
    factor = torch.ones(3, dtype=torch.float64) if enhanced else s[adapter.sampled]
    left, right = adapter.vectors()
    near(adapter.values.grad, torch.einsum("ik,ij,kj->k", left, gradient, right))
    near(adapter.active_left.grad, factor * (gradient @ right[adapter.sampled].T))
    near(adapter.active_right.grad, factor[:, None] * (left[:, adapter.sampled].T @ gradient))


def test_odds_are_half_even_and_half_by_size():
    values = torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)
    near(probabilities(values), torch.tensor([1 / 6 + 3 / 8, 1 / 6 + 1 / 8, 1 / 6], dtype=torch.float64))
    near(probabilities(0 * values), torch.full((3,), 1 / 3, dtype=torch.float64))


@pytest.fixture
def trained(weight):
    """A function that makes `steps` of Adam from the same start; gives the model, its adapter, the optimizer."""

    def train(steps, **options):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(9, 6, bias=False)).double()
        model[0].weight.data.copy_(weight)
        inject(model, "linear", partial(SST, rank=2, every=3, **options))
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.05)
        x = torch.randn(16, 9, dtype=torch.float64)
        for step in range(steps):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
            after_step(model, step, steps)
            forget_resampled(optimizer, model)
        (adapter,) = adapters(model)
        return model, adapter, optimizer

    return train


def test_values_all_move_and_vectors_only_where_sampled(trained):
    _, start, _ = trained(0)
    _, end, _ = trained(2)
    assert (end.values != start.values).all()
    others = [i for i in range(6) if i not in end.sampled.tolist()]
    one, other = start.vectors(), end.vectors()
    assert torch.equal(one[0][:, others], other[0][:, others])
    assert torch.equal(one[1][others], other[1][others])
    assert not torch.isclose(one[0][:, end.sampled], other[0][:, end.sampled]).any()
    near(other[0].norm(dim=0), torch.ones(6, dtype=torch.float64))
    near(other[1].norm(dim=1), torch.ones(6, dtype=torch.float64))


def test_values_do_not_become_negative(trained):
    _, adapter, _ = trained(100, draws=50)
    assert adapter.values.min() == 0


@pytest.mark.parametrize("what", ["draw", "decompose"])
def test_the_weight_does_not_change_by_a_draw_or_a_decomposition(what, trained, weight):
    _, adapter, _ = trained(2)
    before, sampled = adapter.weight(weight).detach(), adapter.sampled.clone()
    vectors = adapter.vectors()[0].detach()
    skew = (vectors.T @ vectors - torch.eye(6)).norm()
    assert skew > 1e-3  # the control: training has turned some
    getattr(adapter, what)()
    near(adapter.weight(weight), before)
    vectors = adapter.vectors()[0]
    if what == "draw":
        assert not torch.equal(adapter.sampled, sampled)
    else:
        near(vectors.T @ vectors, torch.eye(6, dtype=torch.float64))
        near(adapter.values, torch.linalg.svdvals(before))


@pytest.mark.parametrize(("steps", "known"), [(2, {"values", "left", "right"}), (3, {"values"}), (6, set())])
def test_the_optimizer_forgets_what_was_exchanged(steps, known, trained):
    """A draw every three steps, a decomposition every two draws."""
    _, adapter, optimizer = trained(steps, draws=2)
    named = {"values": adapter.values, "left": adapter.active_left, "right": adapter.active_right}
    assert {name for name, p in named.items() if p in optimizer.state} == known


def test_all_is_drawn_before_a_decomposition_by_default(weight):
    assert [SST(weight, rank=rank).draws for rank in (1, 2, 4, 6)] == [6, 3, 2, 1]


def test_merged_it_is_the_layer_and_the_state_holds_the_whole_method(trained):
    model, _, _ = trained(4)
    x = torch.randn(5, 9, dtype=torch.float64)
    other, _, _ = trained(0)
    assert not torch.allclose(other(x), model(x))
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(other(x), model(x))
    assert torch.equal(merge(model)(x), other(x))
    assert type(model[0]) is nn.Linear


def test_a_rank_that_there_is_not_is_refused(weight):
    with pytest.raises(ValueError, match="rank=7 is above 6"):
        SST(weight, rank=7)
