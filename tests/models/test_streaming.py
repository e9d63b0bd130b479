"""Streamed low-rank transformers: the plain model's outputs at any tile, mask and length, in less memory."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fisherexp.metrics.live_memory import LiveMemory
from fisherexp.models.char_gpt import CharGPT
from fisherexp.models.streaming import (
    Factored,
    attend,
    factored,
    factorize,
    feed_forward,
    plain,
    stream,
    streamable,
)
from fisherexp.models.vit import ViT

torch.manual_seed(0)


def parts(outputs: int, inputs: int, rank: int = 3, bias: bool = True) -> Factored:
    drawn = torch.randn(outputs, rank).double(), torch.randn(rank, inputs).double()
    return Factored(*drawn, torch.randn(outputs).double() if bias else None)


def dense(layer: Factored, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, layer.left @ layer.right, layer.bias)


@pytest.mark.parametrize("tile", [1, 7, 30, 100])
def test_tiles_of_hidden_units_do_not_show(tile):
    x, first, second = torch.randn(2, 5, 12).double(), parts(30, 12), parts(12, 30)
    expected = dense(second, F.gelu(dense(first, x)))
    torch.testing.assert_close(feed_forward(x, first, second, F.gelu, tile), expected, rtol=1e-10, atol=1e-10)


def test_the_largest_tensor_is_as_wide_as_a_tile():
    """Of 1024 hidden units; what goes in and comes out is 128 wide."""
    x, first, second = torch.randn(8, 512, 128).double(), parts(1024, 128, 16), parts(128, 1024, 16)
    largest = {}
    for tile in (128, 256, 1024):
        with LiveMemory() as memory:
            feed_forward(x, first, second, F.gelu, tile)
        largest[tile] = memory.largest
    assert largest == {tile: tile * 8 * 512 * 8 for tile in (128, 256, 1024)}


@pytest.mark.parametrize("kind", ["boolean", "-inf"])
def test_a_row_without_any_place_to_look_at_is_zero(kind):
    """As torch's own attention has it; a softmax of nothing would be NaN."""
    layers = [parts(12, 12, bias=n < 3) for n in range(4)]
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    mask[2] = False
    if kind == "-inf":
        mask = torch.zeros(5, 5).double().masked_fill(~mask, -torch.inf)
    found = attend(torch.randn(2, 5, 12).double(), *layers, 4, mask=mask)
    assert not found[:, 2].any(), f"scaled_dot_product_attention no longer gives zeros for a row masked by {kind}"
    assert found[:, [0, 1, 3, 4]].isfinite().all()
    assert found[:, [0, 1, 3, 4]].any(-1).all()


@pytest.mark.parametrize("at_once", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["all", "causal", "padded"])
def test_heads_one_after_the_other_are_all_heads(at_once, kind):
    """37 places: no multiple of any tile."""
    x, layers = torch.randn(2, 37, 12).double(), [parts(12, 12, bias=n != 1) for n in range(4)]
    mask = None
    if kind == "padded":
        mask = torch.ones(2, 1, 1, 37, dtype=torch.bool)
        mask[1, ..., 30:] = False
    query, key, value = (dense(layer, x).unflatten(-1, (4, 3)).transpose(1, 2) for layer in layers[:3])
    scores = query @ key.mT / 3**0.5
    if kind == "causal":
        scores = scores.masked_fill(torch.ones(37, 37, dtype=torch.bool).triu(1), -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    expected = dense(layers[3], (scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
    found = attend(x, *layers, 4, kind == "causal", mask, at_once)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_merged_low_rank_layer_has_its_factors():
    layer = nn.Linear(20, 15).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(15, 4).double() @ torch.randn(4, 20).double())
    found = factored(layer, 4)
    torch.testing.assert_close(found.left @ found.right, layer.weight.detach())
    assert (found.left.shape, found.right.shape) == ((15, 4), (4, 20))
    assert factored(layer, 99).left.shape == (15, 15)


MODELS = {
    "gpt": (lambda: CharGPT(dim=32, depth=2, heads=4, input_shape=(64,), vocabulary=9), torch.randint(9, (8, 64))),
    "vit": (lambda: ViT(patch=2, dim=32, depth=2, heads=4, input_shape=(1, 8, 8)), torch.randn(8, 1, 8, 8)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_streamed_model_is_the_plain_one_in_less_memory(kind):
    make, x = MODELS[kind]
    model = make().eval()
    layers = [name for kinds in streamable(model).values() for names in kinds for name in names]
    assert len(layers) == 12
    factors = factorize(model, dict.fromkeys(layers, 4))
    low, streamed = copy.deepcopy(model), copy.deepcopy(model)
    plain(low, factors)
    stream(streamed, factors, tile=16)
    outputs, memories = {}, {}
    for name, each in {"dense": model, "plain": low, "streamed": streamed}.items():
        with torch.no_grad(), LiveMemory() as memory:
            outputs[name] = each(x)
        memories[name] = memory
    torch.testing.assert_close(outputs["streamed"], outputs["plain"], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(outputs["dense"], outputs["plain"], atol=1e-3)
    hidden = 4 * x.numel() // x[0].numel() * (64 if kind == "gpt" else 17) * 4 * 32  # float32, four times the width
    assert memories["dense"].largest == memories["plain"].largest == hidden
    assert memories["streamed"].largest == hidden // 4  # what goes from layer to layer
    assert memories["streamed"].peak < 0.7 * memories["plain"].peak
    assert memories["plain"].peak >= memories["dense"].peak  # low rank alone saves nothing: the point of it


def test_at_full_rank_it_is_the_dense_model():
    make, x = MODELS["vit"]
    model = make().eval()
    streamed = copy.deepcopy(model)
    ranks = {name: 99 for kinds in streamable(model).values() for names in kinds for name in names}
    stream(streamed, factorize(model, ranks))
    with torch.no_grad():
        torch.testing.assert_close(streamed(x), model(x), rtol=1e-4, atol=1e-4)


def test_a_model_without_such_layers_is_refused():
    with pytest.raises(ValueError, match="no layer that is streamed"):
        streamable(nn.Sequential(nn.Linear(3, 3)))


def test_live_memory_counts_what_is_alive_at_once():
    given = torch.zeros(1000)
    with LiveMemory() as memory:
        one = given + 1
        view = one[:10]
        del one
        two = given * 2  # one's storage lives on in its view
        del view
        three = two + 1
        given.add_(1)
        del two, three
    assert (memory.peak, memory.largest, memory.now) == (8000, 4000, 0)
