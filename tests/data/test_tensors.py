"""Sets of any inputs: named ones, weights and tags stay with their samples, and all of it is in the hash."""

import hashlib
from dataclasses import replace

import pytest
import torch

from fisherexp.data.tensors import TensorLoader, TensorSet

N = 23
NUMBERS = torch.arange(N)
TEXT = TensorSet(
    {"tokens": NUMBERS[:, None] + torch.arange(4), "mask": NUMBERS[:, None] % torch.arange(1, 5) == 0},
    NUMBERS,
    NUMBERS / 100,
).tagged(domain=NUMBERS % 3, forgotten=NUMBERS > 9)


def check(batch) -> list[int]:
    """The samples in a batch, each with what belongs to it."""
    numbers = batch.targets
    assert torch.equal(batch.inputs["tokens"], TEXT.inputs["tokens"][numbers])
    assert torch.equal(batch.inputs["mask"], TEXT.inputs["mask"][numbers])
    assert torch.equal(batch.weights, numbers / 100)
    assert torch.equal(batch.tags["domain"], numbers % 3)
    assert torch.equal(batch.tags["forgotten"], numbers > 9)
    return numbers.tolist()


def test_a_subset_takes_everything_along():
    chosen = [5, 22, 0, 5]
    assert check(TEXT.subset(chosen).batch) == chosen
    assert check(TEXT.subset(chosen).subset(torch.tensor([3, 1])).batch) == [5, 22]


@pytest.mark.parametrize(
    "options", [{}, {"shuffle": True}, {"indices": [7, 3, 20, 11]}, {"shuffle": True, "drop_last": True}]
)
@pytest.mark.parametrize("world_size", [1, 3])
def test_a_loader_takes_everything_along(options, world_size):
    ranks = [TEXT.loader(5, rank=rank, world_size=world_size, **options) for rank in range(world_size)]
    seen = [number for loader in ranks for batch in loader for number in check(batch)]
    assert (
        len(seen) == len(set(seen)) == (len(seen) if options.get("shuffle") else len(options.get("indices", NUMBERS)))
    )
    assert set(seen) <= set(options.get("indices", range(N)))
    assert len(seen) > (N // 2 if "indices" not in options else 3)


def test_tags_are_added_or_replaced_and_the_set_stays_as_it_was():
    found = TEXT.tagged(forgotten=False, noise=-1)
    assert set(found.tags) == {"domain", "forgotten", "noise"}
    assert not found.tags["forgotten"].any()
    assert found.tags["noise"].tolist() == [-1] * N
    assert set(TEXT.tags) == {"domain", "forgotten"}
    assert TEXT.tags["forgotten"].any()
    with pytest.raises(ValueError, match="tag domain must be"):
        TEXT.tagged(domain=torch.arange(3))


def digest(samples: TensorSet) -> str:
    found = hashlib.blake2b()
    samples.hash_into(found)
    return found.hexdigest()


def other(values: torch.Tensor) -> torch.Tensor:
    """The same but for one element."""
    values = values.clone()
    values.view(-1)[7] = values.view(-1)[7] + 1 if values.dtype != torch.bool else ~values.view(-1)[7]
    return values


CHANGES = {
    "an input": lambda s: replace(s, inputs=s.inputs | {"tokens": other(s.inputs["tokens"])}),
    "a mask": lambda s: replace(s, inputs=s.inputs | {"mask": other(s.inputs["mask"])}),
    "the name of an input": lambda s: replace(s, inputs={"words": s.inputs["tokens"], "mask": s.inputs["mask"]}),
    "a target": lambda s: replace(s, targets=other(s.targets)),
    "a weight": lambda s: replace(s, weights=other(s.weights)),
    "no weights": lambda s: replace(s, weights=None),
    "a tag": lambda s: s.tagged(domain=other(s.tags["domain"])),
    "a further tag": lambda s: s.tagged(noise=0),
    "the name of a tag": lambda s: replace(s, tags={"source": s.tags["domain"], "forgotten": s.tags["forgotten"]}),
    "the order": lambda s: s.subset(NUMBERS.flip(0)),
}


def test_the_hash_is_that_of_the_content():
    assert digest(TEXT) == digest(TEXT.subset(NUMBERS)) == digest(replace(TEXT, tags=dict(reversed(TEXT.tags.items()))))
    found = {name: digest(change(TEXT)) for name, change in CHANGES.items()}
    assert len({digest(TEXT), *found.values()}) == 1 + len(CHANGES), found


def test_what_differs_in_number_is_refused():
    with pytest.raises(ValueError, match=r"differ in number: \[5, 6\]"):
        TensorLoader(TensorSet(torch.zeros(5, 2), torch.zeros(6)), 2)
    with pytest.raises(ValueError, match=r"differ in number: \[5, 6\]"):
        TensorLoader(TensorSet(torch.zeros(5, 2), torch.zeros(5), weights=torch.ones(6)), 2)
