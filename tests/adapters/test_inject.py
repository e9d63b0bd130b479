"""Which layers get an adapter, with which options, what is trained then, and what is said of bad input."""

import ast
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import fisherexp.adapters
from fisherexp.adapters import LoRA, PiSSA, adapter_state_dict, inject, layer_names, load_adapter_state_dict


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("query", "key", "value", "out")})
        self.norm = nn.LayerNorm(4)
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))


def net():
    model = nn.Module()
    model.embed = nn.Conv2d(1, 4, 2)
    model.tokens = nn.Embedding(9, 4)
    model.blocks = nn.ModuleList([Block(), Block()])
    model.head = nn.Linear(4, 3)
    return model


def per_block(*names):
    return [f"blocks.{block}.{name}" for block in (0, 1) for name in names]


MLP, ATTENTION = ("mlp.0", "mlp.2"), ("attention.query", "attention.key", "attention.value", "attention.out")
LINEAR = [*per_block(*ATTENTION, *MLP), "head"]


@pytest.mark.parametrize(
    ("targets", "exclude", "expected"),
    [
        ("linear", None, LINEAR),
        ("linear", "^head$", LINEAR[:-1]),
        ("convolution", None, ["embed"]),
        ("embedding", None, ["tokens"]),
        ("query", None, per_block("attention.query")),
        ("attention_output", None, per_block("attention.out")),
        ("mlp", None, per_block(*MLP)),
        (r"blocks\.1\.", None, [name for name in LINEAR if ".1." in name]),
        (r"(query|value)$", r"blocks\.0", ["blocks.1.attention.query", "blocks.1.attention.value"]),
        (["query", "blocks.0.mlp.2"], None, [*per_block("attention.query"), "blocks.0.mlp.2"]),
        (lambda name, layer: getattr(layer, "out_features", 0) == 8, None, per_block("mlp.0")),
    ],
)
def test_targets(targets, exclude, expected):
    found = layer_names(net(), targets, exclude)
    assert sorted(found) == sorted(expected)
    assert set(inject(net(), targets, partial(LoRA, rank=1), exclude=exclude)) == set(expected)


def test_options_by_pattern_the_first_that_matches():
    options = {"mlp.0": {"rank": 3}, "mlp": {"rank": 2, "alpha": 8.0}}
    layers = inject(net(), "linear", partial(LoRA, rank=1), options=options)
    found = {name: (len(layer.adapters[0].down), layer.adapters[0].scale) for name, layer in layers.items()}
    assert {found[name] for name in per_block("mlp.0")} == {(3, 1.0)}
    assert {found[name] for name in per_block("mlp.2")} == {(2, 4.0)}
    assert {value for name, value in found.items() if "mlp" not in name} == {(1, 1.0)}


@pytest.mark.parametrize(
    ("trained", "expected"), [(None, set()), ("^head", {"head.weight", "head.bias"}), (r"norm", None), ("", None)]
)
def test_all_but_adapters_and_what_is_named_is_frozen(trained, expected):
    model = net()
    model.blocks[0].norm.bias.requires_grad_(False)
    before = {name for name, p in model.named_parameters() if p.requires_grad}
    inject(model, "mlp", partial(LoRA, rank=1), trained=trained)
    found = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in found if ".adapters." in name} == {
        f"{name}.adapters.0.{factor}" for name in per_block(*MLP) for factor in ("down", "up")
    }
    beside = {name for name in found if ".adapters." not in name}
    assert beside == ({name for name in before if trained in name} if expected is None else expected)
    assert beside <= set(adapter_state_dict(model))


def tied():
    model = net()
    model.head = nn.Linear(4, 9, bias=False)
    model.head.weight = model.tokens.weight
    return model


def test_a_shared_parameter_is_trained_by_its_first_name():
    """The second is no error: it is what a head's default names in networks where the head is the token embedding."""
    for pattern, expected in (("^head", False), ("^tokens", True)):
        model = tied()
        inject(model, "mlp", partial(LoRA, rank=1), trained=pattern)
        assert model.head.weight.requires_grad == expected


def renormalized():
    model = net()
    model.tokens = nn.Embedding(9, 4, max_norm=1.0)
    return model


LORA = partial(LoRA, rank=1)


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (net, ("quary", LORA), r"'quary' matches no .* nearest: 'query'"),
        (net, (["query", "walue", "norm"], LORA), r"'walue' matches .*nearest: 'value'; 'norm'"),
        (net, (["blocks.0.norm"], LORA), r"'blocks.0.norm' is a LayerNorm, which cannot be adapted"),
        (lambda: nn.ReLU(), ("linear", LORA), r"there are: none"),
        (net, ("mlp", LORA, {"options": {"attention": {"rank": 2}}}), r"'attention' matches none of .*blocks.0.mlp.0"),
        (
            net,
            ("query", LORA, {"rows": {"query": [(0, 3), (2, 4)]}}),
            r"rows \[\(0, 3\), \(2, 4\)\] of .* 0 … 4",
        ),
        (net, ("query", LORA, {"rows": {"query": [(2, 5)]}}), r"within 0 … 4"),
        (net, ("query", LORA, {"rows": {"query": []}}), r"within 0 … 4"),
        (net, ("query", LORA, {"dropout": 1.0}), r"dropout=1.0 is no probability below 1"),
        (net, ("embedding", LORA, {"dropout": 0.1}), r"'tokens' is an embedding, whose inputs dropout cannot act on"),
        (net, ("query", LORA, {"trained": "^haed"}), r"trained: '\^haed' is found in no name of a parameter"),
        (tied, ("head", LORA), r"'head' shares its weight with tokens.weight"),
        (renormalized, ("tokens", LORA), r"'tokens' has max_norm"),
        (net, ("query", partial(LoRA, rank=0)), r"rank=0 must be at least 1"),
        (net, ("query", partial(PiSSA, rank=5)), r"rank=5 is above 4"),
        (tied, ("head|query", LORA, {"dropout": 2.0, "options": {"mlp": {}}}), r"'mlp' .*; dropout=2.0 .*; 'head' sh"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(model, arguments, message):
    model = model()
    targets, make, *options = arguments
    types = [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=message):
        inject(model, targets, make, **(options[0] if options else {}))
    assert [type(module) for module in model.modules()] == types
    assert all(p.requires_grad for p in model.parameters())


def test_a_second_adapter_must_agree_on_how_the_layer_applies_it():
    model = net()
    inject(model, "query", LORA)
    inject(model, "query", LORA)
    with pytest.raises(ValueError, match=r"'blocks.0.attention.query' has adapters with dropout=0.0, factored=True"):
        inject(model, "query", LORA, factored=False)


def test_a_layer_that_computes_otherwise_is_left_alone():
    class Normalized(nn.Linear):
        def forward(self, x):
            return nn.functional.linear(x, nn.functional.normalize(self.weight))

    class Renamed(nn.Linear):
        pass

    model = nn.Sequential(Normalized(2, 2), Renamed(2, 2))
    assert list(inject(model, "linear", LORA)) == ["1"]


def test_all_that_is_wrong_with_a_state_is_said_at_once():
    model = net()
    inject(model, "query", LORA)
    state = {name: torch.ones_like(tensor) for name, tensor in adapter_state_dict(model).items()}
    name, other, *_ = state
    bad = {key: value for key, value in state.items() if key != name} | {
        other: torch.ones(7),
        "stranger": torch.ones(1),
    }
    with pytest.raises(
        ValueError, match=rf"'{name}' is missing; 'stranger' is not part .*; '{other}' has shape \(7,\)"
    ):
        load_adapter_state_dict(model, bad)
    assert not any(torch.equal(tensor, torch.ones_like(tensor)) for tensor in adapter_state_dict(model).values())
    load_adapter_state_dict(model, state)
    assert all(torch.equal(tensor, torch.ones_like(tensor)) for tensor in adapter_state_dict(model).values())


def test_the_room_needs_torch_only():
    allowed = {"torch", "fisherexp.adapters", *sys.stdlib_module_names}
    for file in Path(fisherexp.adapters.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert {name, name.partition(".")[0], ".".join(name.split(".")[:2])} & allowed, (file.name, name)
