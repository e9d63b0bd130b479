"""Heads read from models, edits of them, and the study on a model whose one channel is built in."""

import csv
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from fisherexp.methods.spectral.attention_heads import attention_layers
from fisherexp.methods.spectral.head_edits import attention_to_previous, share_right, without_head, writing
from fisherexp.methods.spectral.talking_heads import TalkingHeads
from fisherexp.metrics.composition import scores
from fisherexp.models.attention_only import AttentionOnly
from fisherexp.models.char_gpt import CharGPT
from fisherexp.models.classifier import Classifier
from fisherexp.models.vit import ViT

DIM, HEADS = 24, 3


def built(kind: type = AttentionOnly) -> Classifier:
    torch.manual_seed(0)
    backbone = kind(dim=DIM, depth=2, heads=HEADS, input_shape=(10,), vocabulary=7)
    for block in backbone.blocks:
        nn.init.uniform_(block.norm1.weight, 0.5, 1.5)  # scales that must be folded in
    return Classifier(backbone, DIM, 7)


@pytest.mark.parametrize("kind", [AttentionOnly, CharGPT])
def test_heads_are_what_the_layer_computes(kind):
    """Attention of normed inputs by the matrices of each head, summed, is the layer's, where biases are zero."""
    model = built(kind).double()
    for number, layer in enumerate(attention_layers(model)):
        block = model.backbone.blocks[number]
        for projection in (block.attention.query, block.attention.key, block.attention.value, block.attention.out):
            nn.init.zeros_(projection.bias)
        x = torch.randn(2, 10, DIM, dtype=torch.float64)
        normed = F.layer_norm(x, (DIM,))  # without the scale, which is in the matrices
        query, key, value = (normed[:, None] @ part for part in layer.heads[:3])
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        expected = (mixed @ layer.heads.output).sum(1)
        torch.testing.assert_close(block.attention(block.norm1(x)), expected)


class Attention(nn.Module):
    """Llama's names: four query heads that share two of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.head_dim = 4
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(16, n, bias=False) for n in (16, 8, 8))
        self.o_proj = nn.Linear(16, 16, bias=False)


def test_grouped_queries_have_the_keys_of_their_group_and_scales_are_folded():
    layer = nn.Module()
    layer.self_attn, layer.input_layernorm = Attention(), nn.LayerNorm(16)
    nn.init.uniform_(layer.input_layernorm.weight, 0.5, 1.5)
    (found,) = attention_layers(nn.ModuleList([layer]))
    heads, scale = found.heads, layer.input_layernorm.weight.detach()
    assert [tuple(part.shape) for part in heads] == [(4, 16, 4)] * 3 + [(4, 4, 16)]
    assert torch.equal(heads.key[0], heads.key[1])
    assert not torch.equal(heads.key[1], heads.key[2])
    torch.testing.assert_close(heads.query[2], scale[:, None] * layer.self_attn.q_proj.weight[8:12].T)
    torch.testing.assert_close(heads.key[3], scale[:, None] * layer.self_attn.k_proj.weight[4:8].T)
    torch.testing.assert_close(heads.output[1], layer.self_attn.o_proj.weight[:, 4:8].T)


class OneMore(nn.RMSNorm):
    """As Gemma's: its weight begins as zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=1e-6) * (1 + self.weight)


def test_the_scale_of_a_norm_is_what_it_does_and_not_what_it_holds():
    layer = nn.Module()
    layer.self_attn, layer.input_layernorm = Attention(), OneMore(16)
    nn.init.uniform_(layer.input_layernorm.weight, -0.2, 0.2)
    (found,) = attention_layers(nn.ModuleList([layer]))
    expected = (1 + layer.input_layernorm.weight.detach())[:, None] * layer.self_attn.v_proj.weight[:4].T
    torch.testing.assert_close(found.heads.value[0], expected)


@pytest.mark.parametrize("widths", [(4, 4), (16, 8)])
def test_a_norm_of_queries_and_keys_has_its_scale_folded(widths):
    """Of each head, or of all together: what a head reads is its normalized query but for the length."""
    layer = nn.Module()
    layer.self_attn, layer.input_layernorm = Attention(), nn.RMSNorm(16)
    attention = layer.self_attn
    attention.q_norm, attention.k_norm = (OneMore(width) for width in widths)
    for norm in (layer.input_layernorm, attention.q_norm, attention.k_norm):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    (found,) = attention_layers(nn.ModuleList([layer]))
    x = torch.randn(7, 16)
    with torch.no_grad():
        for matrices, projection, norm in (
            (found.heads.query, attention.q_proj, attention.q_norm),
            (found.heads.key[::2], attention.k_proj, attention.k_norm),
        ):
            projected = projection(layer.input_layernorm(x))
            whole = len(norm.weight) == projection.out_features
            wanted = (norm(projected) if whole else norm(projected.unflatten(-1, (-1, 4))).flatten(-2)).unflatten(
                -1, (-1, 4)
            )
            made = (layer.input_layernorm(x) / layer.input_layernorm.weight) @ matrices
            for head in range(len(matrices)):
                torch.testing.assert_close(F.normalize(made[head], dim=-1), F.normalize(wanted[:, head], dim=-1))
    assert torch.equal(found.heads.value[0], (layer.input_layernorm.weight * attention.v_proj.weight[:4]).T)


def test_models_whose_heads_are_not_read_are_refused():
    layer = nn.Module()
    layer.self_attn, layer.input_layernorm = Attention(), nn.LayerNorm(16)
    del layer.self_attn.o_proj  # Phi has another name for it
    with pytest.raises(ValueError, match="no attention whose heads are read"):
        attention_layers(nn.ModuleList([layer]))
    with pytest.raises(ValueError, match="no attention whose heads are read"):
        attention_layers(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(ValueError, match="one layer of attention"):
        TalkingHeads(ViT(patch=4, dim=8, depth=1, heads=2, input_shape=(1, 8, 8)))


def test_a_silenced_head_writes_nothing_and_is_put_back():
    model = built()
    first, _ = attention_layers(model)
    before, tokens = model.state_dict()["backbone.blocks.0.attention.out.weight"].clone(), torch.randint(7, (4, 10))
    whole = model(tokens)
    with writing(first, without_head(first, 1)):
        silenced = model(tokens)
        assert not first.output.weight[:, 8:16].any()
    assert torch.equal(first.output.weight, before)
    assert not torch.allclose(silenced, whole)
    assert torch.equal(model(tokens), whole)


def test_attention_to_the_place_before_is_read_from_positions():
    """Positions along axes that a head's keys shift by one; the other heads look anywhere."""
    torch.manual_seed(0)
    positions = nn.Embedding(8, 16)
    nn.init.orthogonal_(positions.weight)
    layer = attention_layers(built())[0]
    query = torch.randn(2, 16, 16) * 0.1
    key = torch.randn(2, 16, 16) * 0.1
    query[0], key[0] = 20 * torch.eye(16), positions.weight.T @ positions.weight.roll(-1, 0)
    heads = layer.heads._replace(query=query, key=key)
    found = attention_to_previous(layer._replace(heads=heads), positions)
    assert found[0] > 0.8 > 0.4 > found[1]


def test_accuracy_leaves_out_what_does_not_count():
    logits = F.one_hot(torch.tensor([[0, 1, 2]]), 3).float()
    batch = SimpleNamespace(inputs=logits, targets=torch.tensor([[0, 2, -100]]))
    assert share_right(lambda x: x, [batch]) == 50


@pytest.fixture(scope="module")
def wired():
    """A model in which head 0.1 writes what the keys of head 1.2 read, by three channels, and batches for it."""
    model = built()
    first, second = (block.attention for block in model.backbone.blocks)
    with torch.no_grad():
        axes = torch.linalg.qr(torch.randn(DIM, DIM))[0]
        second.key.weight[16:] = (axes[:, :8] / model.backbone.blocks[1].norm1.weight[:, None]).T
        first.out.weight[:, 8:16] = 0.05 * torch.randn(DIM, 8)
        first.out.weight[:, 8:11] = 2 * axes[:, :3]
    tokens = torch.randint(7, (40, 10))
    return model, [SimpleNamespace(inputs=tokens, targets=model(tokens).argmax(-1))]


def test_the_study_finds_the_wire_and_what_removing_it_costs(wired, tmp_path):
    model, batches = wired
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    study = TalkingHeads(model, removed=3, draws=50, listed=4)
    study.given["test_batches"] = batches
    study.source_loaded()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    found = study.outcome["pairs"]["k"]
    assert (found[0]["first"], found[0]["second"]) == ("0.1", "1.2")
    assert found[0]["z"] > 5 > 3 > found[1]["z"]
    layers = attention_layers(model)
    expected = scores(layers[0].heads, layers[1].heads, "k")
    assert found[0]["score"] == pytest.approx(float(expected[1, 2]))
    each = study.outcome["channels"]["score"]
    assert min(each[:3]) > max(each[3:])
    accuracy = study.outcome["accuracy"]
    assert accuracy["whole"] == 100
    assert accuracy["without_top"] < accuracy["without_bottom"]
    study.leave_files(tmp_path)
    rows = list(csv.DictReader((tmp_path / "talking_heads.csv").open(encoding="utf-8")))
    assert (rows[4]["mode"], rows[4]["first"], len(rows)) == ("k", "0.1", 12)
    kept = load_file(tmp_path / "talking_heads.safetensors")["k"]
    assert kept.shape == (6, 6)
    assert not kept[:, :3].any()
    assert float(kept[1, 5]) == pytest.approx(found[0]["score"], rel=1e-5)


def test_each_head_is_decomposed_once_and_positions_are_those_of_the_kind(monkeypatch):
    """Of three layers: W_V once by mode, W_Q, W_K or W_O once each, whatever they are paired with."""
    torch.manual_seed(0)
    backbone = AttentionOnly(dim=DIM, depth=3, heads=HEADS, input_shape=(10,), vocabulary=7)
    made, qr = [], torch.linalg.qr
    monkeypatch.setattr(torch.linalg, "qr", lambda matrix: made.append(len(matrix)) or qr(matrix))
    study = TalkingHeads(nn.Sequential(nn.Identity(), backbone), ablate=False, draws=5)  # no module named backbone
    study.source_loaded()
    of_layers = [count for count in made if count == HEADS]
    assert len(of_layers) == 3 * (3 + 3) + 3  # and the channels of the pair that stands out
    assert len(study.outcome["previous_token"]) == HEADS
    other = TalkingHeads(ViT(patch=4, dim=8, depth=2, heads=2, input_shape=(1, 8, 8)), ablate=False, draws=5)
    other.source_loaded()
    assert other.outcome["previous_token"] == []
