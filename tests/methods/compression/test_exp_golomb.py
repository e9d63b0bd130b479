"""Exponential Golomb codes, and a model stored by them: against codes written by hand, and back to the last bit."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fisherexp.methods.compression import rf8
from fisherexp.methods.compression.entropy_coding import coded, decoded, round_to_grid
from fisherexp.methods.compression.exp_golomb import decode, encode, lengths, ranked
from fisherexp.methods.compression.multiply_adds import multiply_adds


def test_the_first_codes_are_those_of_the_definition():
    by_hand = ["1", "010", "011", "00100", "00101", "00110", "00111", "0001000"]
    assert lengths(np.arange(8)).tolist() == [len(code) for code in by_hand]
    line = "".join(by_hand)
    expected = int(line.ljust(-(-len(line) // 8) * 8, "0"), 2).to_bytes(-(-len(line) // 8), "big")
    assert encode(np.arange(8)) == expected


@pytest.mark.parametrize("ranks", [[], [0], [0] * 17, [2**20, 0, 2**31 - 2, 5], list(range(300))])
def test_what_was_encoded_is_decoded(ranks):
    ranks = np.array(ranks, dtype=np.int64)
    stored = encode(ranks)
    assert len(stored) == -(-int(lengths(ranks).sum()) // 8)
    assert decode(stored, len(ranks)).tolist() == ranks.tolist()


def test_bytes_that_end_early_are_refused():
    with pytest.raises(ValueError, match="ends within symbol 2 of 3"):
        decode(encode(np.array([0, 1, 100]))[:-1], 3)


def test_frequent_symbols_get_short_codes():
    table, ranks = ranked(np.array([7, -3, 7, 0, 0, 7]))
    assert table.tolist() == [7, 0, -3]
    assert ranks.tolist() == [0, 2, 0, 1, 1, 0]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 5))


def test_a_stored_model_comes_back_bit_for_bit_buffers_and_all(model):
    model(torch.randn(8, 1, 4, 4))  # running statistics that are no multiples of anything
    with pytest.raises(ValueError, match=r"no multiples of 2\^-5"):
        coded(model, 5)
    round_to_grid(model, 5)
    stored = coded(model, 5)
    found, state = decoded(stored), model.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) and found[name].dtype == state[name].dtype for name in state)
    assert coded(model, 5) == stored  # of what was decoded, the same file
    model.load_state_dict(found)
    assert coded(model, 5) == stored


def of_golomb(model: nn.Module) -> bytes:
    round_to_grid(model, 8)
    return coded(model, 8)


@pytest.mark.parametrize("stored", [of_golomb, rf8.stored])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tied_weights_are_stored_once_and_come_back_as_they_were_stored(stored, dtype):
    """Under any of their names: a raw copy beside them would be what a model that loads the file computes with."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"embedding": nn.Embedding(200, 30), "norm": nn.BatchNorm1d(30), "head": nn.Linear(30, 200)})
    apart = len(stored(copy.deepcopy(model)))
    model["head"].weight = model["embedding"].weight
    file, before = stored(model.to(dtype)), model["head"].weight.detach().clone()
    assert len(file) < apart
    found = decoded(file) if stored is of_golomb else rf8.loaded(file)
    assert found.keys() == model.state_dict().keys()
    assert torch.equal(found["head.weight"], found["embedding.weight"])
    model.load_state_dict(found)
    assert stored(model) == file
    assert torch.equal(model["head"].weight, before) == (stored is of_golomb)  # RF8 rounds as it stores


def test_numbers_beyond_a_symbol_are_refused():
    layer = nn.Linear(3, 3)
    nn.init.constant_(layer.weight, 2.0**15)
    round_to_grid(layer, 15)
    assert decoded(coded(layer, 15))["weight"].min() == 2.0**15
    with pytest.raises(ValueError, match=r"a parameter of 3.28e\+04 is 2.15e\+09 times 2\^-16, beyond"):
        coded(layer, 16)


def test_the_size_counts_the_table_and_falls_with_the_grid(model):
    sizes = []
    for bits in (8, 5, 2):
        round_to_grid(model, bits)
        sizes.append(len(coded(model, bits)))
    assert sizes[0] > sizes[1] > sizes[2]
    one_symbol = 10 * torch.ones(1000)  # a bit for each weight, four bytes for the table, and the header
    layer = nn.Linear(1000, 1, bias=False)
    layer.weight.data = one_symbol[None]
    assert 125 + 4 < len(coded(layer, 5)) < 125 + 4 + 120


def test_multiply_adds_are_places_times_weights_that_are_not_zero(model):
    images = torch.randn(3, 1, 4, 4)
    assert multiply_adds(model, images) == {"0": 16 * 4 * 9, "3": 64 * 5}
    with torch.no_grad():
        model[0].weight[0] = 0
    assert multiply_adds(model, images)["0"] == 16 * 3 * 9


class Words(nn.Module):
    """Of texts: a layer for each word, one of GPT-2's, which has its weight the other way round, and one for the whole
    text."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.gpt, self.head = nn.Linear(8, 6), Conv1D(5, 6), nn.Linear(5, 2)

    def forward(self, inputs):
        x = self.gpt(self.words(F.one_hot(inputs["input_ids"], 8).float()))
        return self.head((x * inputs["attention_mask"][..., None]).mean(1))


class Conv1D(nn.Module):
    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(m, n))

    def forward(self, x):
        return x @ self.weight


@pytest.mark.parametrize("texts", [1, 5])
def test_multiply_adds_of_a_text_do_not_depend_on_how_many_go_together(texts):
    inputs = {"input_ids": torch.randint(8, (texts, 7)), "attention_mask": torch.ones(texts, 7)}
    assert multiply_adds(Words(), inputs) == {"words": 7 * 48, "gpt": 7 * 30, "head": 10}
