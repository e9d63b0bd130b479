"""Clients: disjoint parts of the data, unequal as asked for; rounds and Poisson batches that a position restores."""

import pytest
import torch

from fisherexp.data.tensors import TensorSet
from fisherexp.methods.finetuning.clients import LocalBatches, dirichlet_parts

LABELS = torch.arange(600) % 5


def skew(parts):
    """The largest share of a class in a client, the mean over clients."""
    shares = [torch.bincount(LABELS[part], minlength=5).max() / len(part) for part in parts]
    return torch.stack(shares).mean()


def test_every_sample_has_one_client_and_classes_are_shared_out_unevenly():
    parts = dirichlet_parts(LABELS, 6, 0.5, seed=0)
    assert sorted(torch.cat(parts).tolist()) == list(range(600))
    assert skew(parts) > 0.4
    assert skew(dirichlet_parts(LABELS, 6, 1000.0, seed=0)) < 0.25  # the control: nearly a fifth each


def test_parts_are_those_of_their_seed():
    one, again, other = (dirichlet_parts(LABELS, 4, 0.5, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_more_clients_than_samples_are_refused():
    with pytest.raises(ValueError, match=r"clients=9 with .* leave a client without samples"):
        dirichlet_parts(LABELS[:5], 9, 0.1, 0)


@pytest.fixture
def local():
    samples = TensorSet(torch.arange(600.0)[:, None], LABELS)
    parts = dirichlet_parts(LABELS, 6, 10.0, seed=0)
    return LocalBatches(samples, parts, taking_part=3, steps=4, batch_size=20, seed=0)


def test_a_round_is_one_client_after_the_other(local):
    assert len(local) == 12
    for step in range(48):
        client = local.client_of(step)
        assert client == local.drawn(step // 12)[step % 12 // 4]
        mine = set(local.parts[client].tolist())
        assert set(local.local_batch(step).inputs.flatten().int().tolist()) <= mine
    assert len({tuple(local.drawn(number)) for number in range(20)}) > 5


def test_batches_are_poisson_samples(local):
    """Sizes are of mean q n and variance q (1 - q) n, no batch is the last one."""
    sizes = torch.tensor([local.local_batch(step).size for step in range(1200)], dtype=torch.float64)
    assert sizes.mean() == pytest.approx(20, abs=0.5)
    rates = torch.tensor([local.rate(client) for client in range(6)])
    assert sizes.var() == pytest.approx(20 * (1 - rates.mean().item()), rel=0.15)
    assert not torch.equal(local.local_batch(0).inputs, local.local_batch(1).inputs)
    small = LocalBatches(local.samples, local.parts, 3, 4, batch_size=10**6, seed=0)
    assert small.local_batch(0).size == len(small.parts[small.client_of(0)])  # all of it


def test_a_position_within_a_round_is_gone_on_from(local):
    local.set_epoch(2)
    whole = [batch.inputs for batch in local]
    assert torch.equal(whole[5], local.local_batch(2 * 12 + 5).inputs)
    local.load_state_dict({"epoch": 2, "batch": 5})
    local.set_epoch(2)
    rest = [batch.inputs for batch in local]
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], rest, strict=True))
    assert local.state_dict() == {"epoch": 2, "batch": 12}
    assert not torch.equal(next(iter(local)).inputs, whole[5])  # the next pass is from the start
