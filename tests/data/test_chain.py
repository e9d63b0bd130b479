"""One loader after the other, resumed at any batch."""

import pytest
import torch

from fisherexp.data.chain import ChainedLoader
from fisherexp.data.tensors import TensorLoader


def chained() -> ChainedLoader:
    labels = torch.arange(17)
    images = torch.zeros(17, 1, 4, 4, dtype=torch.uint8)
    return ChainedLoader([TensorLoader(images[:10], labels[:10], 4), TensorLoader(images[10:], labels[10:], 4)])


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
