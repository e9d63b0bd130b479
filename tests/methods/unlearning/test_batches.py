"""Retained and forgotten batches in one fit: nothing is lost, marked wrongly or repeated, wherever one resumes."""

import itertools

import pytest
import torch

from fisherexp.data.tensors import TensorSet
from fisherexp.methods.unlearning.batches import InTurn, SideBySide, is_forgotten, mark, marked, unmarked


def numbered(count: int, first: int = 0) -> TensorSet:
    labels = torch.arange(first, first + count)
    return TensorSet(labels.to(torch.uint8).view(-1, 1, 1, 1), labels)


def combined(kind, **options):
    retain, forget = numbered(10), marked(numbered(5, first=50))
    options = {"shuffle": True, "seed": 3} | options
    return kind(retain.loader(4, **options), forget.loader(2, **options))


def test_a_mark_can_be_seen_and_taken_off():
    labels = torch.tensor([0, 3, 9])
    assert is_forgotten(mark(labels)).all()
    assert not is_forgotten(labels).any()
    assert torch.equal(mark(mark(labels)), labels)
    assert torch.equal(unmarked(torch.cat([labels, mark(labels)])), labels.repeat(2))


def test_in_turn_goes_through_both():
    loader = combined(InTurn)
    batches = list(loader)
    assert len(batches) == len(loader) == 3 + 3
    labels = torch.cat([labels for _, labels in batches])
    assert labels[:10].sort().values.tolist() == list(range(10))
    assert unmarked(labels[10:]).sort().values.tolist() == list(range(50, 55))
    assert is_forgotten(labels[10:]).all()


def test_side_by_side_goes_through_the_first_once_and_repeats_the_second():
    loader = SideBySide(numbered(10).loader(2, shuffle=True), marked(numbered(5, first=50)).loader(2, shuffle=True))
    batches = list(loader)
    assert len(batches) == len(loader) == 5
    labels = torch.cat([labels for _, labels in batches])
    forget = is_forgotten(labels)
    assert labels[~forget].sort().values.tolist() == list(range(10))
    seen = unmarked(labels[forget])
    assert seen[:5].sort().values.tolist() == list(range(50, 55))
    assert len(seen) == 9  # 2 + 2 + 1 + 2 + 2


@pytest.mark.parametrize("kind", [InTurn, SideBySide])
def test_going_on_from_any_position_gives_what_was_left(kind):
    def epoch(loader, number: int) -> list:
        loader.set_epoch(number)
        return [labels.tolist() for _, labels in loader]

    whole = combined(kind)
    expected = [epoch(whole, 0), epoch(whole, 1), epoch(whole, 2)]
    assert expected[0] != expected[1]
    for position in range(1, len(whole)):
        stopped = combined(kind)
        epoch(stopped, 0)
        stopped.set_epoch(1)
        list(itertools.islice(stopped, position))
        resumed = combined(kind)
        resumed.load_state_dict(stopped.state_dict())
        assert epoch(resumed, 1) == expected[1][position:]
        assert epoch(resumed, 2) == expected[2]
