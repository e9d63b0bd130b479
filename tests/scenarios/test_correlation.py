"""Orders correlated by label."""

import pytest
import torch

from fisherexp.scenarios import correlation
from fisherexp.scenarios.correlation import SLOTS, correlated_order, dirichlet_order, effective_classes, slotted_order


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


def test_rottas_slots():
    labels = torch.arange(1200).remainder(6)
    even = slotted_order(labels, 1e9, 6, "test", 0)  # every slot gets a sixth of every class, up to rounding
    assert torch.equal(even.sort().values, torch.arange(1200))
    runs = labels[even].unique_consecutive(return_counts=True)[1]
    assert runs.max() <= 2 * 34  # where a slot begins with the class that the one before it ended with
    for label in range(6):  # samples of a class keep their order; those of the other sampler do not
        members = even[labels[even] == label]
        assert torch.equal(members, members.sort().values)
    shuffled = dirichlet_order(labels, 1.0, 6, "test", 0)
    assert not torch.equal(members := shuffled[labels[shuffled] == 0], members.sort().values)


def test_rottas_slots_are_a_hundred_at_most():
    """With two samples of each of 150 classes in every slot, runs are two long: so many slots there are."""
    labels = torch.arange(150).repeat(2 * SLOTS)
    order = slotted_order(labels, 1e12, 150, "test", 0)
    runs = labels[order].unique_consecutive(return_counts=True)[1]
    assert runs.double().mean().item() == pytest.approx(2, abs=0.05)


def test_rottas_slots_may_be_empty():
    """Where the other sampler draws again, and again in vain."""
    labels = torch.zeros(200, dtype=torch.int64)
    assert torch.equal(slotted_order(labels, 1e-5, 10, "test", 0), torch.arange(200))


def test_a_concentration_of_zero_sorts_by_label():
    labels = torch.arange(1000).remainder(10)
    order = correlated_order(labels, 0, 10, "test", 0)
    assert torch.equal(labels[order], labels.sort().values)
    assert not torch.equal(order, labels.argsort(stable=True))  # each class is shuffled
    assert torch.equal(order.sort().values, torch.arange(1000))
    for sampler, function in (("note", dirichlet_order), ("rotta", slotted_order)):
        assert torch.equal(
            correlated_order(labels, 0.5, 10, "test", 0, sampler=sampler), function(labels, 0.5, 10, "test", 0)
        )
