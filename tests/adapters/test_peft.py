"""The same outputs, gradients and steps as peft, an independent implementation, from the same factors."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from fisherexp.adapters import DoRA, LoRA, PiSSA, adapted_layers, inject, merge

peft = pytest.importorskip("peft")
Conv1D = pytest.importorskip("transformers.pytorch_utils").Conv1D


class Net(nn.Module):
    """A layer of every kind that both know."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.first = nn.Linear(8, 12)
        self.second = Conv1D(8, 12)
        self.head = nn.Linear(6 * 8, 5)

    def forward(self, tokens):
        x = self.second(self.first(self.tokens(tokens)).tanh())
        return self.head(self.conv(x[:, None]).mean(2).flatten(1))


LAYERS = ["tokens", "conv", "first", "second", "head"]
ALPHA, RANK = 6, 2
CLOSE = {"atol": 1e-6, "rtol": 1e-6}
METHODS = {
    "lora": (partial(LoRA, alpha=ALPHA), {}),
    "rslora": (partial(LoRA, alpha=ALPHA, rank_stabilized=True), {"use_rslora": True}),
    "dora": (partial(DoRA, alpha=ALPHA), {"use_dora": True}),
}


def pair(method, dropout=0.0, layers=LAYERS, factored=True, **options):
    """Our model and peft's in float64, with the same numbers everywhere."""
    torch.manual_seed(0)
    make, config = METHODS[method]
    base = Net()
    config = {"r": RANK, "lora_alpha": ALPHA, "lora_dropout": dropout, "target_modules": layers, **config, **options}
    theirs = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**config))
    ours = copy.deepcopy(base)
    rank = {"options": {f"^{name}$": {"rank": r} for name, r in options.get("rank_pattern", {}).items()}}
    inject(ours, layers, partial(make, rank=RANK), dropout=dropout, factored=factored, **rank)
    ours, theirs = ours.double(), theirs.double()
    found = parameters(ours, theirs)
    assert sum(p.numel() for p in theirs.parameters() if p.requires_grad) == sum(one.numel() for one, _ in found)
    with torch.no_grad():
        for one, other in found:
            one += 0.3 * torch.randn_like(one)
            other.copy_(one.view_as(other))
    return ours, theirs


def parameters(ours, theirs):
    """(ours, peft's) of everything that is trained."""
    found = []
    for name, layer in adapted_layers(ours).items():
        other = theirs.get_submodule(f"base_model.model.{name}")
        for adapter in layer.adapters:
            if name == "tokens":
                down, up = other.lora_embedding_A["default"], other.lora_embedding_B["default"]
            else:
                down, up = other.lora_A["default"].weight, other.lora_B["default"].weight
            found += [(adapter.down, down), (adapter.up, up)]
            if isinstance(adapter, DoRA):
                found.append((adapter.magnitude, other.lora_magnitude_vector["default"].weight))
    return found


def batch():
    return torch.randint(11, (16, 7)), torch.randint(5, (16,))


def compare(ours, theirs, steps=5):
    x, y = batch()
    torch.testing.assert_close(ours(x), theirs(x), **CLOSE)
    # A step at which the largest scale, rslora's, does not run away.
    optimizers = [torch.optim.SGD([p for p in m.parameters() if p.requires_grad], 0.01) for m in (ours, theirs)]
    for _ in range(steps):
        x, y = batch()
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
        for one, other in parameters(ours, theirs):
            torch.testing.assert_close(one.grad, other.grad.view_as(one), **CLOSE)
        for optimizer in optimizers:
            optimizer.step()
    for one, other in parameters(ours, theirs):
        torch.testing.assert_close(one, other.view_as(one), **CLOSE)
    torch.testing.assert_close(merge(ours)(x), theirs.merge_and_unload()(x), **CLOSE)


@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_outputs_gradients_steps_and_merged_weights(method, factored):
    compare(*pair(method, factored=factored))


def test_ranks_by_pattern():
    compare(*pair("lora", rank_pattern={"first": 3, "head": 1}))


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_dropout_from_the_same_random_stream(method):
    ours, theirs = pair(method, dropout=0.4, layers=["first", "second", "head"])
    x, _ = batch()
    outputs = []
    for model in (ours, theirs):
        model.train()
        torch.manual_seed(5)
        outputs.append(model(x))
    torch.testing.assert_close(*outputs, **CLOSE)
    assert not torch.allclose(outputs[0], ours.eval()(x))


@pytest.mark.parametrize("alpha", [2, 6])
def test_pissa_begins_at_the_same_factors_and_trains_alike(alpha):
    torch.manual_seed(0)
    base = Net()
    layers = ["first", "second", "head"]
    config = peft.LoraConfig(r=RANK, lora_alpha=alpha, target_modules=layers, init_lora_weights="pissa")
    theirs = peft.get_peft_model(copy.deepcopy(base), config)
    ours = copy.deepcopy(base)
    inject(ours, layers, partial(PiSSA, rank=RANK, alpha=alpha))
    x, _ = batch()
    torch.testing.assert_close(ours(x), base(x), atol=1e-6, rtol=1e-6)
    for name, layer in adapted_layers(ours).items():
        (adapter,) = layer.adapters
        other = theirs.get_submodule(f"base_model.model.{name}")
        rest = layer.matrix - adapter.scale * adapter.up_start @ adapter.down_start
        # peft decomposes in float32.
        torch.testing.assert_close(layer.to_matrix(other.base_layer.weight), rest, atol=3e-6, rtol=1e-5)
        # Of each singular pair the common sign is free.
        sign = (adapter.down * other.lora_A["default"].weight).sum(1).sign()
        with torch.no_grad():
            for factor in (adapter.up, adapter.up_start):
                factor *= sign
            for factor in (adapter.down, adapter.down_start):
                factor *= sign[:, None]
    for one, other in parameters(ours, theirs):
        torch.testing.assert_close(one, other, atol=3e-6, rtol=1e-5)  # peft decomposes in float32
    with torch.no_grad():  # from there on no such rounding is in the way
        for one, other in parameters(ours, theirs):
            other.copy_(one)
        for name, layer in adapted_layers(ours).items():
            (adapter,) = layer.adapters
            rest = layer.matrix - adapter.scale * adapter.up_start @ adapter.down_start
            theirs.get_submodule(f"base_model.model.{name}").base_layer.weight.copy_(layer.from_matrix(rest))
    compare(ours.double(), theirs.double())
