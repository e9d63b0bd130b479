"""Adapted layers of every kind: the operation with W', however it is computed, and what a layer still is."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fisherexp.adapters import DoRA, LoRA, PiSSA, adapted_layers, inject, merge
from fisherexp.adapters.adapter import Adapter


class Conv1D(nn.Module):
    """The transposed linear layer of GPT-2, spelt as transformers spells it."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def images():
    return torch.randn(2, 4, 9, 9)


def tokens():
    return torch.arange(12).remainder(11).view(3, 4)


# A layer, its inputs, and from its weight the matrix (m, n).
KINDS = {
    "linear": (lambda: nn.Linear(7, 5), lambda: torch.randn(3, 4, 7), lambda w: w),
    "no bias": (lambda: nn.Linear(7, 5, bias=False), lambda: torch.randn(3, 7), lambda w: w),
    "convolution": (lambda: nn.Conv2d(4, 6, 3, 2, 1), images, lambda w: w.reshape(6, -1)),
    "dilated": (lambda: nn.Conv2d(4, 6, 2, dilation=2, bias=False), images, lambda w: w.reshape(6, -1)),
    "circular": (lambda: nn.Conv2d(4, 6, 3, 1, 1, padding_mode="circular"), images, lambda w: w.reshape(6, -1)),
    "same": (lambda: nn.Conv2d(4, 6, 3, padding="same"), images, lambda w: w.reshape(6, -1)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), images, lambda w: w.reshape(6, -1)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4), images, lambda w: w.reshape(4, -1)),
    "embedding": (lambda: nn.Embedding(11, 5), tokens, lambda w: w.T),
    "padded embedding": (lambda: nn.Embedding(11, 5, padding_idx=2), tokens, lambda w: w.T),
    "transposed": (lambda: Conv1D(5, 7), lambda: torch.randn(3, 4, 7), lambda w: w.T),
}
ADAPTERS = {"lora": LoRA, "dora": DoRA, "pissa": PiSSA}


def made(kind, method="lora", **options):
    """A model of one layer with a moved adapter, inputs, and the plain model with the weight of the definition."""
    torch.manual_seed(1)
    layer, draw, to_matrix = KINDS[kind]
    plain = nn.Sequential(layer()).double()
    if kind == "padded embedding":
        nn.init.normal_(plain[0].weight)  # a row of zeros has no direction for DoRA
    model = copy.deepcopy(plain)
    inject(model, lambda name, layer: True, partial(ADAPTERS[method], rank=2, alpha=3), **options)
    (adapter,) = model[0].adapters
    with torch.no_grad():
        for p in adapter.parameters():
            p += 0.3 * torch.randn_like(p)
        matrix = to_matrix(plain[0].weight)
        update = 1.5 * adapter.up @ adapter.down
        if method == "pissa":
            update = update - 1.5 * adapter.up_start @ adapter.down_start
        if method == "dora":
            scaled = adapter.magnitude[:, None] * nn.functional.normalize(matrix + update, dim=1)
            update = scaled - matrix
        to_matrix(plain[0].weight).add_(update)
    x = draw()
    return model, x if "embedding" in kind else x.double(), plain


@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize("method", ADAPTERS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_outputs_are_those_of_the_effective_weight(kind, method, factored):
    model, x, plain = made(kind, method, factored=factored)
    torch.testing.assert_close(model[0].weight, plain[0].weight)
    torch.testing.assert_close(model(x), plain(x))
    merge(model)
    assert type(model[0]) is type(plain[0])
    torch.testing.assert_close(model(x), plain(x))


@pytest.mark.parametrize("method", ["lora", "pissa", "dora"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_do_not_depend_on_how_the_weight_is_applied(kind, method):
    found = []
    for factored in (True, False):
        model, x, _ = made(kind, method, factored=factored)
        model(x).square().sum().backward()
        found.append([p.grad for p in model[0].adapters.parameters()])
        assert model[0].frozen_weight.grad is None
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize("method", ADAPTERS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "embedding" not in kind])
def test_dropout_acts_on_the_inputs_of_the_update_only(kind, method, factored):
    model, x, plain = made(kind, method, factored=factored, dropout=0.5)
    layer = model[0]
    torch.testing.assert_close(model.eval()(x), plain(x))
    model.train()
    torch.manual_seed(3)
    found = model(x)
    torch.manual_seed(3)
    dropped = nn.functional.dropout(x, 0.5)
    frozen = copy.deepcopy(plain)
    frozen[0].weight.data.copy_(layer.frozen_weight)
    torch.testing.assert_close(found, frozen(x) + plain(dropped) - frozen(dropped))
    assert not torch.allclose(found, plain(dropped))  # control: the frozen weight saw all inputs


@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize("kind", ["linear", "convolution", "embedding", "transposed"])
def test_two_ranges_of_rows_have_adapters_of_their_own(kind, factored):
    torch.manual_seed(1)
    layer, draw, to_matrix = KINDS[kind]
    plain = nn.Sequential(layer()).double()
    model, x = copy.deepcopy(plain), draw()
    x = x if kind == "embedding" else x.double()
    rows = [(0, 2), (3, 5)]
    inject(model, lambda name, layer: True, partial(LoRA, rank=1), rows={"0": rows}, factored=factored)
    with torch.no_grad():
        for (start, stop), adapter in zip(rows, model[0].adapters, strict=True):
            nn.init.normal_(adapter.up)
            assert adapter.up.shape == (2, 1)
            to_matrix(plain[0].weight)[start:stop] += adapter.up @ adapter.down
    torch.testing.assert_close(model(x), plain(x))
    torch.testing.assert_close(merge(model)[0].weight, plain[0].weight)


@pytest.mark.parametrize("factored", [True, False])
def test_a_second_adapter_is_applied_after_the_first(factored):
    model, x, plain = made("linear", factored=factored)
    inject(model, "linear", partial(LoRA, rank=1), factored=factored)
    _, second = model[0].adapters
    assert all(p.requires_grad for p in model[0].adapters.parameters())
    torch.testing.assert_close(model(x), plain(x))
    nn.init.normal_(second.up)
    torch.testing.assert_close(model[0].weight, plain[0].weight + second.up @ second.down)
    torch.testing.assert_close(model(x), nn.functional.linear(x, model[0].weight, model[0].bias))


def test_a_layer_stays_what_it_was_to_everybody_else():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    keys = list(model.state_dict())
    inject(model, "linear", partial(LoRA, rank=1))
    assert list(adapted_layers(model)) == ["0"]
    assert model[0] is model[2] is shared
    assert isinstance(shared, nn.Linear)
    assert set(keys) <= set(model.state_dict())
    assert [key for key in model.state_dict() if key not in keys] == [
        f"{place}.adapters.0.{factor}" for place in "02" for factor in ("down", "up")
    ]
    x = torch.randn(2, 4)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))
        merge(twin)
        assert list(twin.state_dict()) == keys
    assert len(shared.adapters) == 1  # merging a copy left the original alone


def test_a_module_that_reads_the_weight_meets_the_effective_one():
    """nn.MultiheadAttention never calls the layer it projects with."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(2, 3, 8)
    inject(attention, ["out_proj"], partial(LoRA, rank=2))
    nn.init.normal_(attention.out_proj.adapters[0].up)
    adapted = attention(x, x, x)[0]
    torch.testing.assert_close(merge(attention)(x, x, x)[0], adapted)
    attention.out_proj.weight.data.zero_()
    assert not torch.allclose(attention(x, x, x)[0], adapted)


def test_an_error_within_an_adapter_does_not_show_the_frozen_weight():
    class Broken(Adapter):
        def __init__(self, weight):
            super().__init__()

        def weight(self, weight):
            return self.nothing

    model = nn.Linear(2, 2)
    inject(model, "linear", Broken)
    with pytest.raises(RuntimeError, match=r"AdaptedLinear failed: .*nothing"):
        _ = model.weight
