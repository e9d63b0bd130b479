"""Factors in the place of a weight: their start, their rank, their count, their gradients."""

import pytest
import torch

from fisherexp.adapters import Factorised


@pytest.fixture
def weight():
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_spectral_start_is_the_nearest_of_its_rank(rank, weight):
    adapter = Factorised(weight, rank)
    values = torch.linalg.svdvals(weight)
    made = adapter.weight(weight)
    torch.testing.assert_close((weight - made).norm(), values[rank:].norm(), atol=1e-12, rtol=1e-9)
    balanced = torch.diag(values[:rank])
    torch.testing.assert_close(adapter.up.T @ adapter.up, balanced)
    torch.testing.assert_close(adapter.down @ adapter.down.T, balanced)
    assert adapter.num_trainable() == rank * (7 + 5)


def test_torchs_start_knows_nothing_of_the_weight(weight):
    adapter = Factorised(weight, 4, init="torch")
    assert 0.8 * 5**-0.5 < adapter.down.abs().max() <= 5**-0.5
    assert 0.8 * 4**-0.5 < adapter.up.abs().max() <= 4**-0.5
    assert torch.equal(adapter.weight(weight), adapter.weight(torch.zeros_like(weight)))


def test_the_gradients_are_those_of_a_product(weight):
    adapter, gradient = Factorised(weight, 2), torch.ones_like(weight).cumsum(0)
    (gradient * adapter.weight(weight)).sum().backward()
    torch.testing.assert_close(adapter.up.grad, gradient @ adapter.down.T)
    torch.testing.assert_close(adapter.down.grad, adapter.up.T @ gradient)


@pytest.mark.parametrize(("rank", "message"), [(0, "at least 1"), (6, "rank=6 is above 5")])
def test_a_rank_that_there_is_not_is_refused(rank, message, weight):
    with pytest.raises(ValueError, match=message):
        Factorised(weight, rank)
