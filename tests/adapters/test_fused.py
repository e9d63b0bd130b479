"""Projections that are fused or transposed: torch's own attention, and tiny random transformers of the library."""

import copy
from functools import partial

import pytest
import torch
from test_exactness import METHODS, RANK
from torch import nn

from fisherexp.adapters import EVA, LoRA, inject, layer_names, merge
from fisherexp.data.batch import Batch
from fisherexp.methods.finetuning.explained import explained

WIDTH = 8
IDS = torch.arange(14).remainder(11).view(2, 7)
SIZES = {"vocab_size": 11, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
BLOCK = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH}


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def gpt2(library):
    """One block; query, key and value are one Conv1D, whose weight is transposed."""
    torch.manual_seed(0)
    return library.GPT2Model(library.GPT2Config(n_embd=WIDTH, n_layer=1, n_head=2, n_positions=8, **SIZES)).double()


def states(model):
    return model.eval()(input_ids=IDS).last_hidden_state


def moved(model, targets, method, **options):
    """Give it adapters of other numbers than they begin with; their layers."""
    layers = inject(model, targets, partial(METHODS[method][0], rank=RANK), **options)
    with torch.no_grad():
        for layer in layers.values():
            for parameter in layer.adapters.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return layers


@pytest.mark.parametrize("method", METHODS)
def test_a_transposed_layer_computes_with_the_weight_of_the_definition(method, gpt2):
    model, plain = copy.deepcopy(gpt2), copy.deepcopy(gpt2)
    layers = moved(model, "linear", method)
    assert {name.rpartition("h.0.")[2] for name in layers} == {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}
    for name, layer in layers.items():
        weight = plain.get_submodule(name).weight.data  # (n, m)
        weight.copy_(layer.adapters[0].weight(weight.T).T)
    torch.testing.assert_close(states(model), states(plain))
    assert not torch.allclose(states(model), states(gpt2))  # control
    torch.testing.assert_close(states(merge(model)), states(plain))


@pytest.mark.parametrize("method", METHODS)
def test_query_and_value_of_a_fused_projection(method, gpt2):
    model = copy.deepcopy(gpt2)
    query, key, value = [(0, WIDTH), (WIDTH, 2 * WIDTH), (2 * WIDTH, 3 * WIDTH)]
    layers = moved(model, "fused_qkv", method, rows={"c_attn": [query, value]})
    ((name, layer),) = layers.items()
    before, adapted = gpt2.get_submodule(name).weight.T, states(model)
    adapters = list(layer.adapters)
    after = merge(model).get_submodule(name).weight.T
    torch.testing.assert_close(states(model), adapted)
    assert torch.equal(after[slice(*key)], before[slice(*key)])
    for adapter, rows in zip(adapters, (query, value), strict=True):
        torch.testing.assert_close(after[slice(*rows)], adapter.weight(before[slice(*rows)]))


ROLES = {
    "GPT2": {"fused_qkv": ["attn.c_attn"], "attention_output": ["attn.c_proj"], "mlp": ["mlp.c_fc", "mlp.c_proj"]},
    "Bert": {
        "(query|value)$": ["self.query", "self.value"],
        "key": ["self.key"],
        "attention_output": ["attention.output.dense"],
        "mlp": ["intermediate.dense", "0.output.dense"],
    },
    "Llama": {
        "query": ["q_proj"],
        "attention_output": ["o_proj"],
        "mlp": ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
    },
    "GPTNeoX": {
        "fused_qkv": ["query_key_value"],
        "attention_output": ["attention.dense"],
        "mlp": ["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"],
    },
    "DistilBert": {
        "value": ["attention.v_lin"],
        "attention_output": ["attention.out_lin"],
        "mlp": ["ffn.lin1", "ffn.lin2"],
    },
}


@pytest.mark.parametrize("kind", ROLES)
def test_roles_by_the_names_of_transformers(kind, library):
    own = {"GPT2": {"n_embd": WIDTH, "n_layer": 1, "n_head": 2}}
    own["DistilBert"] = {"dim": WIDTH, "hidden_dim": 4 * WIDTH, "n_layers": 1, "n_heads": 2}
    config = getattr(library, f"{kind}Config")(**SIZES | {"pad_token_id": 0} | own.get(kind, BLOCK))
    with torch.device("meta"):
        model = getattr(library, f"{kind}Model")(config)
    for role, ends in ROLES[kind].items():
        found = layer_names(model, role)
        assert len(found) == len(ends), found
        assert all(name.endswith(end) for name, end in zip(found, ends, strict=True)), found


def test_eva_knows_the_inputs_of_transposed_layers(gpt2):
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = copy.deepcopy(gpt2)

        def forward(self, ids):
            return self.net(input_ids=ids).last_hidden_state

    name = "net.h.0.mlp.c_proj"
    seen = []
    model = Whole()
    model.get_submodule(name).register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].flatten(0, 1)))
    found = explained(model, [name], [Batch(IDS, torch.zeros(2))], rank=2, rho=1.0, tau=1.0)
    inputs = seen[0].detach() - seen[0].detach().mean(0)
    cosines = torch.linalg.svdvals(found.directions[name] @ torch.linalg.svd(inputs).Vh[:2].T)
    torch.testing.assert_close(cosines, torch.ones(2).double())
    inject(model, [name], partial(EVA, directions=found.directions[name], rank=2, alpha=2.0))


def encoder():
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True).double()


@pytest.mark.parametrize("method", METHODS)
def test_torchs_own_encoder_reads_the_effective_weights(method, monkeypatch):
    """In evaluation it passes its weights to one fused operation and calls none of its layers."""
    model, x = encoder(), torch.randn(2, 5, WIDTH, dtype=torch.float64)
    assert set(moved(model, "linear", method)) == {"self_attn.out_proj", "linear1", "linear2"}
    fast, calls = torch._transformer_encoder_layer_fwd, []
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *args: calls.append(1) or fast(*args))
    with torch.no_grad():
        trained, fused = model.train()(x), model.eval()(x)
    torch.testing.assert_close(fused, trained)
    assert len(calls) == 1
    assert not torch.allclose(fused, encoder().eval()(x))  # control
    merge(model)
    with torch.no_grad():
        torch.testing.assert_close(model(x), trained)


@pytest.mark.parametrize("targets", ["fused_qkv", "in_proj", ["in_proj_weight"], ["self_attn.in_proj_weight"]])
def test_torchs_fused_projection_is_refused(targets):
    with pytest.raises(ValueError, match=r"means self_attn.in_proj_weight, a parameter of a MultiheadAttention and no"):
        inject(encoder(), targets, partial(LoRA, rank=1))


def test_what_an_attention_applies_itself_knows_no_dropout_and_no_inputs():
    with pytest.raises(ValueError, match=r"'self_attn.out_proj' is applied by its attention"):
        inject(encoder(), "linear", partial(LoRA, rank=1), dropout=0.1)
    model = encoder()
    assert set(inject(model, "linear", partial(LoRA, rank=1), dropout=0.1, exclude="out_proj")) == {
        "linear1",
        "linear2",
    }
    batch = Batch(torch.randn(2, 5, WIDTH, dtype=torch.float64), torch.zeros(2))
    with pytest.raises(ValueError, match=r"EVA sees no inputs of self_attn.out_proj, which"):
        explained(encoder(), ["self_attn.out_proj"], [batch], rank=1, rho=1.0, tau=1.0)
