"""Repeated blocks: every label that counts is foretold by what came before, and no other is."""

import pytest
import torch

from fisherexp.data.errors import DataError
from fisherexp.data.repeated_blocks import RepeatedBlocks


def test_labels_that_count_are_what_followed_the_last_time():
    data = RepeatedBlocks(n=200, test_samples=50, shortest=4, longest=9, context=20, vocabulary=500).load()
    assert (len(data.train), len(data.test)) == (200, 50)
    seen = set()
    for tokens, labels in zip(data.train.inputs, data.train.targets, strict=True):
        counts = labels != -100
        length = 1 + int((~counts).sum())  # the first block foretells its second round only
        seen.add(length)
        assert torch.equal(labels[:-1][counts[:-1]], tokens[1:][counts[:-1]])
        full = torch.cat([tokens, labels[-1:]])
        assert torch.equal(full[length:], full[:-length])
    assert seen == set(range(4, 10))
    assert not torch.equal(data.train.inputs[:50], data.test.inputs)


def test_the_seed_decides():
    one, again, other = (RepeatedBlocks(n=20, test_samples=5, seed=seed).checksum() for seed in (0, 0, 1))
    assert one == again != other


def test_a_block_that_fills_the_sequence_is_refused():
    with pytest.raises(DataError, match=r"data.shortest=5, data.longest=24, data.context=24"):
        RepeatedBlocks(longest=24)
