"""One loader after the other, resumed at any batch."""

import pytest
import torch

from fisherexp.data.composite import Chained
from fisherexp.data.tensors import TensorLoader

LABELS = torch.arange(17)
IMAGES = torch.zeros(17, 1, 4, 4, dtype=torch.uint8)


def chained() -> Chained:
    return Chained(
        TensorLoader(TensorSet(IMAGES[:10], LABELS[:10]), 4), TensorLoader(TensorSet(IMAGES[10:], LABELS[10:]), 4)
    )


def shuffled() -> Chained:
    """Two batches, then all five, of the same shuffled set."""
    loader = TensorLoader(TensorSet(IMAGES, LABELS), 4, shuffle=True)
    return Chained(loader, loader, lengths=[2, len(loader)])


def labels_of(loader) -> list[list[int]]:
    return [labels.tolist() for _, labels in loader]


EXPECTED = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [10, 11, 12, 13], [14, 15, 16]]


def test_every_pass_goes_through_all_loaders_and_mixes_none():
    loader = chained()
    assert len(loader) == len(EXPECTED)
    assert labels_of(loader) == EXPECTED
    assert labels_of(loader) == EXPECTED


@pytest.mark.parametrize("done", range(1, 5))
def test_resumed_after_any_batch(done):
    first, second = chained(), chained()
    batches = iter(first)
    for _ in range(done):
        next(batches)
    second.load_state_dict(first.state_dict())
    assert labels_of(second) == EXPECTED[done:]


def test_a_shuffled_loader_has_another_order_in_each_pass_and_epoch():
    loader = shuffled()
    assert len(loader) == 7
    epochs = [labels_of(loader) for _ in range(3)]
    seen = [[label for batch in epoch[2:] for label in batch] for epoch in epochs]
    assert all(labels != LABELS.tolist() and sorted(labels) == LABELS.tolist() for labels in seen)
    assert len({tuple(map(tuple, part)) for epoch in epochs for part in (epoch[:2], epoch[2:4])}) == 6
    loader.set_epoch(1)
    assert labels_of(loader) == epochs[1]


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 6, 7, 9, 14])
def test_shuffled_passes_resumed_after_any_batch_of_announced_epochs(stop):
    def announced(loader, first=0):
        for epoch in range(first, 3):
            loader.set_epoch(epoch)
            yield from loader

    expected = [labels.tolist() for _, labels in announced(shuffled())]
    first, second = shuffled(), shuffled()
    batches = announced(first)
    found = [next(batches)[1].tolist() for _ in range(stop)]
    second.load_state_dict(first.state_dict())
    begun = first.epoch + (first.batch == len(first))  # Lightning goes on with the next epoch
    found += [labels.tolist() for _, labels in announced(second, begun)]
    assert found == expected
