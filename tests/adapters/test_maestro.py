"""Maestro's factors: the start, widths, the lasso over tails, importance, and what shrinking leaves as it is."""

import pytest
import torch

from fisherexp.adapters import Maestro
from fisherexp.adapters.maestro import tail_norms


@pytest.fixture
def weight():
    torch.manual_seed(0)
    return torch.randn(5, 8, dtype=torch.float64)


def near(one, other):
    torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


def test_it_begins_as_the_weight_and_each_width_is_the_nearest_of_its_rank(weight):
    adapter = Maestro(weight)
    near(adapter.weight(weight), weight)
    values = torch.linalg.svdvals(weight)
    for width in range(1, 6):
        adapter.width = width
        near((weight - adapter.weight(weight)).norm(), values[width:].norm())
    assert adapter.num_trainable() == 5 * (5 + 8)


def test_a_width_trains_its_own_components_alone(weight):
    adapter = Maestro(weight)
    adapter.width = 2
    adapter.weight(weight).square().sum().backward()
    assert adapter.left.grad[:, :2].all()
    assert not adapter.left.grad[:, 2:].any()
    assert not adapter.right.grad[2:].any()


def test_tails_by_hand_and_their_gradient_where_they_are_zero():
    rows = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]], requires_grad=True)
    norms = tail_norms(rows)
    torch.testing.assert_close(norms, torch.tensor([5.0, 4.0, 0.0]))
    norms.sum().backward()
    torch.testing.assert_close(rows.grad, torch.tensor([[0.6, 0.0], [0.0, 1.8], [0.0, 0.0]]))


def test_the_penalty_counts_later_components_more_often(weight):
    adapter = Maestro(weight, penalty_weight=0.5)
    tails = sum(adapter.left[:, k:].norm() + adapter.right[k:].norm() for k in range(5))
    near(adapter.penalty(), 0.5 * tails)
    importance = adapter.importance()
    near(importance, torch.stack([adapter.left[:, k:].norm() * adapter.right[k:].norm() for k in range(5)]).detach())
    assert (importance.diff() <= 0).all()


def test_components_without_importance_go_and_change_nothing(weight):
    adapter = Maestro(weight)
    with torch.no_grad():
        adapter.left[:, 3:] = 0
    before = adapter.weight(weight).detach()
    assert not adapter.shrink(0.0)
    assert adapter.shrink(1e-5)
    assert int(adapter.kept) == 3
    near(adapter.weight(weight), before)
    assert not adapter.shrink(1e-5)
    assert adapter.shrink(1e9)  # the first stays
    assert int(adapter.kept) == 1
    assert not torch.allclose(adapter.weight(weight), before)  # the control
    with torch.no_grad():
        adapter.left.fill_(9.0)
    adapter.shrink(1e-5)
    assert int(adapter.kept) == 1  # what went does not come back
