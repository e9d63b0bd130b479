"""Every step sees every domain, whatever their sizes; a position is found again."""

import dataclasses

import pytest
import torch

from fisherexp.data.composite import SideBySide
from fisherexp.data.digits import Digits
from fisherexp.methods.domain_generalization.batches import by_domain, of_every_domain
from fisherexp.scenarios.domains import Domains


def setting(batch_size: int, **options):
    options = {"holdout": 0.0, "made_by": "patch", "agreement": [0.8, 0.9, 0.7, 0.1]} | options
    return Domains(**options).setting(Digits(batch_size=batch_size).load(), seed=0)


def counts(batch):
    return torch.bincount(batch.tags["domain"]).tolist()


def of_domain(cut, number):
    samples = cut.parts["domains"]
    return samples.subset((samples.tags["domain"] == number).nonzero().flatten())


def test_domains_follow_each_other_with_their_own_samples():
    cut = setting(50)
    names = ["train_a80", "train_a90", "train_a70"]
    for batch in of_every_domain(cut):
        assert counts(batch) == [50, 50, 50]
        inputs, targets = (by_domain(values, batch.tags["domain"]) for values in batch[:2])
        for name, part, classes in zip(names, inputs, targets, strict=True):
            whole = cut.parts[name]
            for image, label in zip(part[:5], classes[:5], strict=True):
                same = (whole.inputs == image).flatten(1).all(dim=1)
                assert (same & (whole.targets == label)).any()


def test_domains_of_equal_size_have_orders_of_their_own():
    _, first, second = of_every_domain(setting(64)).loaders
    assert len(first.order(0)) == len(second.order(0))
    assert not torch.equal(first.order(0), second.order(0))


def test_a_domain_smaller_than_a_batch_is_in_every_batch_as_a_whole():
    cut = setting(200, label_shift=0.9, holdout=0.5)
    sizes = [len(cut.parts[f"train_{name}"]) for name in ("a80", "a90", "a70")]
    assert max(sizes) < 200
    (batch,) = of_every_domain(cut)
    assert counts(batch) == sizes


def test_the_longest_domain_sets_the_epoch_and_the_others_start_again():
    cut = setting(64)
    loader = of_every_domain(cut)
    few = of_domain(cut, 1).subset(range(130))
    first, _, third = loader.loaders
    loader = SideBySide(first, cut.loader_of(few, shuffle=True, batch_size=64, drop_last=True), third)
    assert len(loader.loaders[1]) == 2
    assert [counts(batch) for batch in loader] == [[64, 64, 64]] * len(loader)
    assert len(loader) == 449 // 64


@pytest.mark.parametrize("after", [1, 4])
def test_goes_on_in_mid_epoch(after):
    whole, broken = of_every_domain(setting(64)), of_every_domain(setting(64))
    for loader in (whole, broken):
        loader.set_epoch(3)
    expected = list(whole)
    stream = iter(broken)
    for _ in range(after):
        next(stream)
    resumed = of_every_domain(setting(64))
    resumed.load_state_dict(broken.state_dict())
    resumed.set_epoch(3)
    rest = list(resumed)
    assert len(rest) == len(expected) - after
    for batch, other in zip(rest, expected[after:], strict=True):
        assert torch.equal(batch.inputs, other.inputs)
        assert torch.equal(batch.targets, other.targets)
        assert torch.equal(batch.tags["domain"], other.tags["domain"])


def test_two_ranks_together_see_what_one_process_sees():
    def marks(batch):
        return (batch.targets + 10 * batch.tags["domain"]).tolist()

    ranks = [dataclasses.replace(setting(50), rank=r, world_size=2) for r in range(2)]
    shares = [of_every_domain(cut) for cut in ranks]
    for whole, *parts in zip(of_every_domain(setting(100)), *shares, strict=True):
        assert sorted(mark for part in parts for mark in marks(part)) == sorted(marks(whole))


def test_a_domain_with_fewer_samples_than_ranks_is_refused():
    cut = dataclasses.replace(setting(50), world_size=2)
    second = (cut.parts["domains"].tags["domain"] == 1).nonzero()[0].item()
    cut.parts["domains"] = cut.parts["domains"].subset([0, 1, second])
    with pytest.raises(ValueError, match=r"training domain 1 has 1 samples for 2 ranks; .*trainer\.devices=1"):
        of_every_domain(cut)
