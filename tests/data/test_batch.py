"""Selecting from batches, changing and joining them: plain and named inputs, with weights and tags."""

import pytest
import torch

from fisherexp.data.batch import Batch, joined, mapped, spread


def batch(first: int = 0, named: bool = False, carrying: bool = True) -> Batch:
    """Three samples numbered from `first`; everything about a sample is a function of its number."""
    number = torch.arange(first, first + 3)
    inputs = number[:, None].float().expand(-1, 2)
    if named:
        inputs = {"tokens": number[:, None] + 100, "mask": number[:, None] % 2 == 0}
    if not carrying:
        return Batch(inputs, number)
    return Batch(inputs, number, number / 10, {"domain": 2 * number, "forgotten": number > 1})


def numbers_of(found: Batch) -> list[int]:
    """The samples in a batch; every part of it has to tell the same."""
    assert found.size == len(found.targets)
    numbers = found.targets
    if isinstance(found.inputs, dict):
        assert torch.equal(found.inputs["tokens"][:, 0], numbers + 100)
        assert torch.equal(found.inputs["mask"][:, 0], numbers % 2 == 0)
    else:
        assert torch.equal(found.inputs, numbers[:, None].float().expand(-1, 2))
    if found.weights is not None:
        assert torch.equal(found.weights, numbers / 10)
        assert torch.equal(found.tags["domain"], 2 * numbers)
        assert torch.equal(found.tags["forgotten"], numbers > 1)
    return numbers.tolist()


CASES = pytest.mark.parametrize("options", [{}, {"named": True}, {"carrying": False}], ids=["plain", "named", "bare"])


@CASES
def test_select_and_map_reach_every_part(options):
    one = batch(**options)
    assert numbers_of(one) == [0, 1, 2]
    assert numbers_of(one.select(one.targets != 1)) == [0, 2]
    assert numbers_of(one.map(lambda tensor: tensor.flip(0))) == [2, 1, 0]
    assert numbers_of(one) == [0, 1, 2]
    assert (one.map(lambda tensor: tensor).weights is None) == ("carrying" in options)


@CASES
def test_joined_keeps_the_order(options):
    assert numbers_of(joined([batch(first, **options) for first in (4, 0, 9)])) == [4, 5, 6, 0, 1, 2, 9, 10, 11]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (batch(carrying=False), "domain"),
        (batch()._replace(weights=None), "weights"),
        (batch()._replace(tags={"domain": torch.arange(3)}), "forgotten"),
    ],
)
def test_batches_that_carry_different_things_are_not_joined(other, named):
    for pair in ((batch(), other), (other, batch())):
        with pytest.raises(ValueError, match=named):
            joined(pair)


def test_mapped_changes_every_named_tensor():
    assert mapped(torch.tensor(2), lambda t: t + 1) == 3
    assert mapped({"a": torch.tensor(1), "b": torch.tensor(2)}, lambda t: -t) == {"a": -1, "b": -2}


def test_tags_are_one_value_a_sample():
    found = spread({"forgotten": True, "domain": 3, "index": torch.arange(4)}, torch.zeros(4, 7))
    assert {name: (tag.dtype, tag.tolist()) for name, tag in found.items()} == {
        "forgotten": (torch.bool, [True] * 4),
        "domain": (torch.int64, [3] * 4),
        "index": (torch.int64, [0, 1, 2, 3]),
    }
    with pytest.raises(ValueError, match=r"tag index must be \(4,\), one value a sample, not \(5,\)"):
        spread({"index": torch.arange(5)}, torch.zeros(4))


@pytest.mark.parametrize("named", [False, True])
def test_rows_of_tokens_are_filled_up_to_the_longest(named):
    def rows(width: int) -> Batch:
        tokens = torch.arange(1, 2 * width + 1).view(2, width)
        return Batch({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)} if named else tokens, tokens)

    found = joined([rows(2), rows(3)])
    ids = found.inputs["input_ids"] if named else found.inputs
    assert ids.tolist() == [[1, 2, 0], [3, 4, 0], [1, 2, 3], [4, 5, 6]]
    assert found.targets.tolist() == [[1, 2, -100], [3, 4, -100], [1, 2, 3], [4, 5, 6]]
    if named:
        assert found.inputs["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]]


def test_numbers_of_different_length_are_no_rows_of_tokens():
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        joined([Batch(torch.zeros(2, width), torch.zeros(2)) for width in (2, 3)])
