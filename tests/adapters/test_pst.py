"""PST: masks and their counts, scores by hand, the straight-through gradient, the schedule of the sparsity."""

from functools import partial

import pytest
import torch
from torch import nn

from fisherexp.adapters import PST, inject, merge
from fisherexp.adapters.pst import Mask, sparsity_at


@pytest.fixture
def weight():
    torch.manual_seed(0)
    return torch.randn(6, 7, dtype=torch.float64)


@pytest.fixture
def adapter(weight):
    """One whose thin matrices have moved, and that prunes 20 of 42."""
    made = PST(weight, rank=2, score_rank=3, product_weight=0.5, sum_weight=0.3, scale=2.0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter))
    made.pruned.fill_(20)
    return made


def near(one, other):
    torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


def test_dense_it_is_the_weight_at_the_start_and_counts_what_it_trains(weight):
    made = PST(weight, rank=2, score_rank=3)
    assert torch.equal(made.weight(weight), weight)
    assert made.num_trainable() == (2 + 3) * (6 + 7) + 6 + 7


def test_update_and_scores_by_hand(adapter, weight):
    near(adapter.updated(weight), weight + 2.0 * adapter.up @ adapter.down)
    sums = adapter.score_rows * torch.ones(1, 7) + torch.ones(6, 1) * adapter.score_columns
    near(
        adapter.scores(weight), adapter.updated(weight).abs() + 0.5 * adapter.score_up @ adapter.score_down + 0.3 * sums
    )


def test_the_smallest_scores_are_masked_and_no_others(adapter, weight):
    made, scores = adapter.weight(weight), adapter.scores(weight)
    zero = made == 0
    assert int(zero.sum()) == 20
    assert scores[zero].max() < scores[~zero].min()
    assert torch.equal(made[~zero], adapter.updated(weight)[~zero])
    assert int((Mask.apply(torch.zeros(5, 5), 7) == 0).sum()) == 7  # of ties as many as asked for


def test_without_learned_terms_magnitude_decides(weight):
    made = PST(weight, product_weight=0.0, sum_weight=0.0)
    nn.init.normal_(made.score_down)
    made.pruned.fill_(10)
    assert weight.abs()[made.weight(weight) == 0].max() < weight.abs()[made.weight(weight) != 0].min()


def test_a_static_mask_stays_where_the_weights_move(adapter, weight):
    """That of |W|; the update has the gradient of the entries that are left and none of the mask."""
    static = PST(weight, rank=2, score_rank=3, product_weight=0.0, sum_weight=0.0, scale=2.0, dynamic=False)
    static.load_state_dict(adapter.state_dict())
    zero, gradient = static.weight(weight) == 0, torch.randn_like(weight)
    assert int(zero.sum()) == 20
    assert weight.abs()[zero].max() < weight.abs()[~zero].min()
    assert not torch.equal(zero, adapter.weight(weight) == 0)  # control: the moving one is another
    (gradient * static.weight(weight)).sum().backward()
    near(static.up.grad, 2.0 * (~zero * gradient) @ static.down.T)


def test_the_gradient_goes_straight_through_the_mask(adapter, weight):
    """∂L/∂S = G ∘ W̃ also where the mask is zero; W̃ besides gets M ∘ G."""
    gradient = torch.randn_like(weight)
    (gradient * adapter.weight(weight)).sum().backward()
    moved, mask = adapter.updated(weight).detach(), (adapter.weight(weight) != 0).double()
    to_scores = gradient * moved
    near(adapter.score_rows.grad, 0.3 * to_scores.sum(1, keepdim=True))
    near(adapter.score_columns.grad, 0.3 * to_scores.sum(0))
    near(adapter.score_down.grad, 0.5 * adapter.score_up.T @ to_scores)
    to_weight = mask * gradient + to_scores * moved.sign()
    near(adapter.up.grad, 2.0 * to_weight @ adapter.down.T)


def test_the_sparsity_rises_by_a_cubic():
    found = [sparsity_at(step, 100, 0.9, 0.1, 0.3) for step in (0, 10, 40, 70, 71, 100)]
    assert found == pytest.approx([0, 0, 0.9 * (1 - 0.5**3), 0.9, 0.9, 0.9])
    steps = [sparsity_at(step, 100, 0.9, 0.1, 0.3) for step in range(101)]
    assert steps == sorted(steps)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.97])
def test_merged_it_has_exactly_as_many_zeros_and_the_same_bits(sparsity):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 5))
    inject(model, "linear", partial(PST, sparsity=sparsity))
    (adapter,) = model[0].adapters
    nn.init.normal_(adapter.score_down)
    for step in range(10):
        adapter.after_step(step, 10)
    x = torch.randn(4, 9)
    before = model(x)
    assert torch.equal(merge(model)(x), before)
    assert int((model[0].weight == 0).sum()) == int(sparsity * 45)


def test_shares_that_leave_no_steps_are_refused(weight):
    with pytest.raises(ValueError, match="sum must be below 1"):
        PST(weight, initial=0.5, final=0.5)
