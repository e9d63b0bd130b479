"""Orders correlated by label."""

import pytest
import torch

from fisherexp.scenarios import correlation
from fisherexp.scenarios.correlation import dirichlet_order, effective_classes


def repeats(labels):
    """Share of neighbors of the same label."""
    return (labels[1:] == labels[:-1]).double().mean().item()


@pytest.mark.parametrize("concentration", [0.01, 0.1, 1.0])
def test_every_sample_once_and_neighbors_alike(concentration):
    labels = torch.arange(1000).remainder(10)[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    order = dirichlet_order(labels, concentration, 10, "test", 0)
    assert torch.equal(order.sort().values, torch.arange(1000))
    # At most ten runs of a label in each of ten chunks; without correlation a tenth of the neighbors would be alike.
    assert repeats(labels) < 0.15
    assert repeats(labels[order]) >= 1 - 100 / 999
    assert torch.equal(order, dirichlet_order(labels, concentration, 10, "test", 0))
    assert not torch.equal(order, dirichlet_order(labels, concentration, 10, "test", 1))


def test_smaller_concentrations_make_longer_runs():
    labels = torch.arange(2000).remainder(10)
    runs = [1 - repeats(labels[dirichlet_order(labels, c, 10, "test", 0)]) for c in (0.01, 0.1, 10.0)]
    assert runs[0] < runs[1] < runs[2]


def test_effective_classes_of_batches():
    assert effective_classes(torch.arange(10).repeat(6), 20) == pytest.approx(10)
    assert effective_classes(torch.tensor([3] * 4 + [1, 7, 1, 7] + [5]), 4) == pytest.approx((1 + 2 + 1) / 3)
    labels = torch.tensor([0, 0, 0, 1])
    entropy = torch.distributions.Categorical(torch.tensor([0.75, 0.25])).entropy()
    assert effective_classes(labels, 4) == pytest.approx(entropy.exp().item())


def test_chunks_are_not_nearly_empty():
    """Even where a class is missing, or there are fewer samples than the published threshold asks for."""
    labels = torch.arange(40).remainder(4)
    order = dirichlet_order(labels, 0.1, 5, "test", 0)
    assert torch.equal(order.sort().values, torch.arange(40))


def test_impossible_concentration(monkeypatch):
    monkeypatch.setattr(correlation, "ATTEMPTS", 20)
    with pytest.raises(ValueError, match="Dirichlet concentration of 1e-05"):
        dirichlet_order(torch.zeros(200, dtype=torch.int64), 1e-5, 10, "test", 0)
