"""Bytes of tensors alive at once, by hand."""

import torch

from fisherexp.metrics.live_memory import LiveMemory


def test_an_address_that_is_used_again_is_not_that_of_what_was_given():
    given = torch.ones(1000)
    with LiveMemory() as memory:
        made = given.view(10, 100) + 1
        assert memory.peak == 4000
        del made, given
        kept = [torch.ones(1000) for _ in range(3)]  # one of them where `given` was, as allocators do
    assert memory.peak == 4000 * len(kept)
