"""The heads of a transformer as matrices, and the weights they are rows and columns of.

Read are transformers whose norm comes before attention: the blocks of this project (models/vit.py), and Llama's layers
and their kin in transformers, by the names of their projections. The scale of a norm is a factor of the rows of query,
key and value and is multiplied into them, and so is that of a norm of each query and key (Qwen3, Gemma 3), of their
columns; centring and division by a length, which depend on the input, are not. Rotary positions turn queries and keys
by angles that depend on how far apart they are; W_QK is that of one place.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fisherexp.metrics.composition import Heads
from fisherexp.models.vit import Block

LLAMA = (*(f"self_attn.{kind}_proj" for kind in "qkvo"), "input_layernorm")


class Layer(NamedTuple):
    """One layer's heads, and its output projection, whose columns h · n … h · (n + 1) are those of head n."""

    name: str
    heads: Heads
    output: nn.Linear


def attention_layers(model: nn.Module) -> list[Layer]:
    """All attention layers of a model in order. Heads that share keys and values (grouped queries) each have them.

    Raises ValueError for a model that has none of a kind that is read.
    """
    modules, found = dict(model.named_modules()), []
    for name, module in modules.items():
        if isinstance(module, Block):
            attention, norm = module.attention, module.norm1
            parts = (attention.query, attention.key, attention.value, attention.out)
            found.append(Layer(name, _heads(*parts, norm.weight, attention.heads, attention.heads), attention.out))
        elif all(f"{name}.{part}" in modules for part in LLAMA):
            attention, norm = module.self_attn, module.input_layernorm
            parts = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
            size = attention.head_dim
            counts = (attention.q_proj.out_features // size, attention.k_proj.out_features // size)
            scale = _scale(norm, parts[0].weight[0])
            of_each = [modules.get(f"{name}.self_attn.{kind}_norm") for kind in "qk"]
            found.append(Layer(name, _heads(*parts, scale, *counts, *of_each), attention.o_proj))
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no attention whose heads are read: this takes char_gpt, small_gpt, "
            "two_layer_attention, vit_tiny and Llama's kin, as smollm2"
        )
    return found


def _scale(norm: nn.Module, like: Tensor) -> Tensor:
    """What a norm multiplies its inputs by, seen from outside: Gemma's, one more than its weight. like: one input."""
    signs = torch.ones_like(like)
    signs[..., 1::2] = -1  # of mean zero and mean square one, so that nothing but scale and bias changes them
    with torch.no_grad():
        return (norm(signs) - norm(-signs)) / 2 * signs


def _heads(
    query: nn.Linear,
    key: nn.Linear,
    value: nn.Linear,
    output: nn.Linear,
    scale: Tensor,
    heads: int,
    shared: int,
    query_norm: nn.Module | None = None,
    key_norm: nn.Module | None = None,
) -> Heads:
    def split(layer: nn.Linear, count: int, norm: nn.Module | None = None) -> Tensor:
        """(H, d, h)"""
        matrices = (layer.weight.detach() * scale.detach()).unflatten(0, (count, -1)).mT
        if norm is not None:  # of one head, or of all of them together
            own = _scale(norm, matrices.new_ones(norm.weight.shape))
            matrices = matrices * own.view(-1, 1, matrices.shape[-1])
        return matrices.repeat_interleave(heads // count, 0)

    out = output.weight.detach().T.unflatten(0, (heads, -1))
    return Heads(split(query, heads, query_norm), split(key, shared, key_norm), split(value, shared), out)
