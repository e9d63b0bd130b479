"""Rows of tokens in one array against the same rows padded by hand in tensors."""

import hashlib

import pytest
import torch

from fisherexp.data.tensors import TensorSet
from fisherexp.data.token_rows import STEP, TokenRows

ROWS = [[5, 6, 7], [8], list(range(10, 21)), [3, 4], [9, 9, 9, 9]]
TARGETS = torch.tensor([0, 1, 1, 0, 1, 0])


def rows(width: int | None = None, which: list[list[int]] = ROWS) -> TokenRows:
    tokens = torch.tensor([token for row in which for token in row], dtype=torch.int32)
    return TokenRows.of(tokens, torch.tensor([len(row) for row in which]), TARGETS[: len(which)], width=width)


def padded(which: list[list[int]], width: int) -> TensorSet:
    inputs = {
        "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in which]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in which]),
    }
    return TensorSet(inputs, TARGETS[: len(which)])


def checksum(samples) -> str:
    digest = hashlib.blake2b(digest_size=8)
    samples.hash_into(digest)
    return digest.hexdigest()


def same(one, other) -> bool:
    return torch.equal(one.targets, other.targets) and all(
        torch.equal(one.inputs[name], other.inputs[name]) for name in ("input_ids", "attention_mask")
    )


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_of_one_width_are_those_of_padded_tensors(shuffle):
    options = {"shuffle": shuffle, "seed": 3}
    pairs = zip(rows(16).loader(2, **options), padded(ROWS, 16).loader(2, **options), strict=True)
    assert all(same(one, other) for one, other in pairs)


def test_a_batch_is_as_wide_as_its_longest_row():
    widths = [batch.inputs["input_ids"].shape[1] for batch in rows().loader(2)]
    assert widths == [STEP, 11, STEP]


def test_no_row_is_padded_beyond_the_longest_of_all():
    """A model with as many places as that has none for more."""
    assert rows().inputs["input_ids"].shape == (5, 11)
    assert rows(which=[*ROWS, [1] * 17]).subset([2]).inputs["input_ids"].shape == (1, 11)
    widths = [batch.inputs["input_ids"].shape[1] for batch in rows(which=[[1] * 3, [1] * 9, [1] * 20]).loader(1)]
    assert widths == [STEP, 2 * STEP, 20]


def test_subsets_share_the_tokens_and_keep_tags():
    whole = rows(16).tagged(number=torch.arange(5))
    part = whole.subset([2, 0])
    assert part.tokens.data_ptr() == whole.tokens.data_ptr()
    assert torch.equal(part.inputs["input_ids"], padded([ROWS[2], ROWS[0]], 16).inputs["input_ids"])
    assert [batch.tags["number"].tolist() for batch in part.loader(2)] == [[2, 0]]


def test_the_checksum_is_that_of_the_rows():
    assert checksum(rows().subset([0, 1])) == checksum(rows(which=ROWS[:2]))
    moved = [[5, 6], [7, 8], *ROWS[2:]]  # the same array, cut elsewhere
    assert len({checksum(rows()), checksum(rows(which=moved)), checksum(rows(16)), checksum(rows().tagged(x=1))}) == 4
