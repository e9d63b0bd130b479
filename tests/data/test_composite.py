"""Several loaders as one: what they hand out, in which order, and going on from any position."""

from itertools import islice

import pytest
import torch

from fisherexp.data.composite import Alternating, ByEpoch, Chained, InTurn, SideBySide
from fisherexp.data.tensors import TensorLoader, TensorSet

SAMPLES = TensorSet(torch.zeros(17, 1, 4, 4, dtype=torch.uint8), torch.arange(17))


def numbered(count: int, first: int = 0) -> TensorSet:
    """Samples that are their own numbers."""
    numbers = torch.arange(first, first + count)
    return TensorSet(numbers.to(torch.uint8).view(-1, 1, 1, 1), numbers)


def two(**options) -> tuple[TensorLoader, TensorLoader]:
    """Ten retained samples in three batches, five forgotten ones from 50 on in three."""
    options = {"shuffle": True, "seed": 3} | options
    retained, forgotten = numbered(10).tagged(forgotten=False), numbered(5, first=50).tagged(forgotten=True)
    return retained.loader(4, **options), forgotten.loader(2, **options)


def alternating(**options) -> Alternating:
    """Two batches of retained samples, then one of forgotten ones."""
    return Alternating(*two(), counts=(2, 1), **options)


def by_epoch() -> ByEpoch:
    """Tasks of three batches, two epochs each."""
    return ByEpoch(*(numbered(5, first=10 * task).loader(2, shuffle=True, seed=task) for task in range(3)), epochs=2)


def targets_of(loader) -> list[list[int]]:
    return [batch.targets.tolist() for batch in loader]


def epoch_of(loader, number: int) -> list[list[int]]:
    """Epoch `number`, announced as Lightning does."""
    loader.set_epoch(number)
    return targets_of(loader)


# --- within an epoch -----------------------------------------------------------------------------------


def test_in_turn_goes_through_all():
    loader = InTurn(*two())
    batches = list(loader)
    assert len(batches) == len(loader) == 3 + 3
    targets, forgotten = (
        torch.cat(parts) for parts in ([b.targets for b in batches], [b.tags["forgotten"] for b in batches])
    )
    assert targets[:10].sort().values.tolist() == list(range(10))
    assert targets[10:].sort().values.tolist() == list(range(50, 55))
    assert torch.equal(forgotten, targets >= 50)


def test_in_turn_counts_epochs_that_nobody_announces():
    loader = InTurn(*two())
    first, second = targets_of(loader), targets_of(loader)
    assert first != second
    assert second == epoch_of(InTurn(*two()), 1)


@pytest.mark.parametrize("leading", [0, None])
def test_side_by_side_goes_through_the_leading_one_once_and_repeats_the_others(leading):
    loader = SideBySide(
        numbered(10).tagged(forgotten=False).loader(2, shuffle=True),
        numbered(5, first=50).tagged(forgotten=True).loader(2, shuffle=True),
        leading=leading,
    )
    batches = list(loader)
    assert len(batches) == len(loader) == 5
    assert all(batch.tags["forgotten"].sort().values.equal(batch.tags["forgotten"]) for batch in batches)  # in order
    targets, forgotten = (
        torch.cat(parts) for parts in ([b.targets for b in batches], [b.tags["forgotten"] for b in batches])
    )
    assert targets[~forgotten].sort().values.tolist() == list(range(10))
    assert targets[forgotten][:5].sort().values.tolist() == list(range(50, 55))
    assert len(targets[forgotten]) == 9  # 2 + 2 + 1 + 2 + 2


def test_the_longest_leads_unless_one_is_named():
    assert len(SideBySide(numbered(2).loader(2), numbered(10).loader(2))) == 5
    assert len(SideBySide(numbered(2).loader(2), numbered(10).loader(2), leading=0)) == 1


def test_side_by_side_refuses_batches_of_which_one_lacks_a_tag():
    loader = SideBySide(numbered(4).loader(2), numbered(4).tagged(forgotten=True).loader(2))
    with pytest.raises(ValueError, match="forgotten"):
        next(iter(loader))


def is_forgotten(loader) -> list[bool]:
    """Of each batch, which holds samples of one kind only."""
    kinds = [batch.tags["forgotten"] for batch in loader]
    assert all(kind.unique().numel() == 1 for kind in kinds)
    return [bool(kind[0]) for kind in kinds]


@pytest.mark.parametrize(
    ("leading", "expected"),
    [(0, [False, False, True, False, True]), (1, 3 * [False, False, True])],  # three batches of each
)
def test_alternating_gives_each_loader_its_turns_until_the_leading_one_is_through(leading, expected):
    loader = alternating(leading=leading)
    assert is_forgotten(loader) == expected
    assert len(loader) == len(expected)
    leads = [batch.targets for batch in loader if bool(batch.tags["forgotten"][0]) == bool(leading)]
    assert torch.cat(leads).sort().values.tolist() == [list(range(10)), list(range(50, 55))][leading]


def test_alternating_has_another_order_in_each_pass_announced_or_not():
    announced, unannounced = alternating(), alternating()
    first, second = targets_of(unannounced), targets_of(unannounced)
    assert first == epoch_of(announced, 0)
    assert second != first != epoch_of(announced, 1)


@pytest.mark.parametrize("counts", [(1,), (2, 0)])
def test_alternating_refuses_counts_that_do_not_fit(counts):
    with pytest.raises(ValueError, match="2 loaders need as many counts of at least 1"):
        Alternating(*two(), counts=counts)


def test_by_epoch_hands_out_one_loader_after_the_other():
    loader = by_epoch()
    for epoch in range(7):
        task = min(epoch // 2, 2)  # after the last comes the last
        found = [number for batch in epoch_of(loader, epoch) for number in batch]
        assert sorted(found) == list(range(10 * task, 10 * task + 5))
    assert epoch_of(loader, 0) != epoch_of(loader, 1)


def test_by_epoch_refuses_loaders_of_different_length():
    with pytest.raises(ValueError, match="equally many batches, not 3, 2"):
        ByEpoch(numbered(5).loader(2), numbered(4).loader(2), epochs=1)


# --- positions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [lambda: InTurn(*two()), lambda: SideBySide(*two()), alternating, lambda: alternating(leading=1), by_epoch],
    ids=["turn", "side", "alternating", "last_leads", "epoch"],
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_going_on_from_any_position_gives_what_was_left(make, at):
    whole = make()
    expected = [epoch_of(whole, number) for number in range(4)]
    assert expected[at] != expected[at + 1]
    for position in range(1, len(whole)):
        stopped = make()
        for number in range(at):
            epoch_of(stopped, number)
        stopped.set_epoch(at)
        list(islice(stopped, position))
        resumed = make()
        resumed.load_state_dict(stopped.state_dict())
        assert epoch_of(resumed, at) == expected[at][position:]
        assert epoch_of(resumed, at + 1) == expected[at + 1]


# --- chained -------------------------------------------------------------------------------------------


def chained() -> Chained:
    return Chained(*(TensorLoader(SAMPLES.subset(range(*part)), 4) for part in ((10,), (10, 17))))


def shuffled() -> Chained:
    """Two batches, then all five, of the same shuffled set."""
    loader = TensorLoader(SAMPLES, 4, shuffle=True)
    return Chained(loader, loader, lengths=[2, len(loader)])


EXPECTED = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [10, 11, 12, 13], [14, 15, 16]]


def test_every_pass_goes_through_all_loaders_and_mixes_none():
    loader = chained()
    assert len(loader) == len(EXPECTED)
    assert targets_of(loader) == EXPECTED
    assert targets_of(loader) == EXPECTED


@pytest.mark.parametrize("done", range(1, 5))
def test_resumed_after_any_batch(done):
    first, second = chained(), chained()
    batches = iter(first)
    for _ in range(done):
        next(batches)
    second.load_state_dict(first.state_dict())
    assert targets_of(second) == EXPECTED[done:]


def test_a_shuffled_loader_has_another_order_in_each_pass_and_epoch():
    loader = shuffled()
    assert len(loader) == 7
    epochs = [targets_of(loader) for _ in range(3)]
    seen = [[number for batch in epoch[2:] for number in batch] for epoch in epochs]
    assert all(numbers != list(range(17)) and sorted(numbers) == list(range(17)) for numbers in seen)
    assert len({tuple(map(tuple, part)) for epoch in epochs for part in (epoch[:2], epoch[2:4])}) == 6
    assert epoch_of(loader, 1) == epochs[1]


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 6, 7, 9, 14])
def test_shuffled_passes_resumed_after_any_batch_of_announced_epochs(stop):
    def announced(loader, first=0):
        for epoch in range(first, 3):
            loader.set_epoch(epoch)
            yield from loader

    expected = targets_of(announced(shuffled()))
    first, second = shuffled(), shuffled()
    batches = announced(first)
    found = targets_of(islice(batches, stop))
    second.load_state_dict(first.state_dict())
    begun = first.epoch + (first.batch == len(first))  # Lightning goes on with the next epoch
    found += targets_of(announced(second, begun))
    assert found == expected
