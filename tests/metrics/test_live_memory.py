"""Bytes of tensors alive at once, by hand."""

import torch

from fisherexp.metrics.live_memory import LiveMemory


def test_an_address_that_is_used_again_is_not_that_of_what_was_given():
    given = [torch.ones(1000) for _ in range(20)]
    with LiveMemory() as memory:
        sums = [tensor.sum() for tensor in given]
        before = memory.peak
        del given, sums
        kept = [torch.ones(1000) for _ in range(30)]  # some of them where the given ones were, as allocators do
    assert before == 4 * 20
    assert memory.peak == 4000 * len(kept)
