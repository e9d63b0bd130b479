"""Transformers of low-rank layers whose wide activations are never formed (FlashSVD).

A layer W = L R keeps x Rᵀ of width r. What is wide, queries, keys and values of all heads and the hidden layer of the
feed-forward part, is made from it tile by tile, used, and let go:

    attention     out = Σ_h softmax(Q_h K_hᵀ / √d) V_h R_out,hᵀ · L_outᵀ,      heads one after the other
    feed-forward  out = Σ_t act(P L_1,tᵀ + b_1,t) R_2,tᵀ · L_2ᵀ + b_2,         tiles t of the hidden units

Shao et al., "FlashSVD", arXiv 2508.01506, whose fused kernels do so on a GPU; the feed-forward part is their first
variant, with one accumulator of width r_2. The authors decompose query, key and value head by head; here a layer whole,
so that all heads share x Rᵀ. Their second variant, one kernel per output tile, is not here. Attention over places is
torch's own, which does not form all of them at once either. The result is that of the plain low-rank model up to
rounding.

Blocks of this project (models/vit.py) and layers of BERT in transformers are streamed.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fisherexp.models.vit import Attention, Block


class Factored(NamedTuple):
    """A linear layer x ↦ x Rᵀ Lᵀ + b: left L (m, r), right R (r, n), bias b (m,) or None."""

    left: Tensor
    right: Tensor
    bias: Tensor | None

    def narrow(self, x: Tensor) -> Tensor:
        """x Rᵀ, (…, r)."""
        return F.linear(x, self.right)

    def widen(self, narrow: Tensor, units: slice = slice(None)) -> Tensor:
        """Some of the outputs, or all, of what `narrow` gave."""
        return F.linear(narrow, self.left[units], None if self.bias is None else self.bias[units])


def factored(layer: nn.Linear, rank: int) -> Factored:
    """The nearest layer of this rank, or its own where that is lower; of a merged low-rank layer its factors."""
    left, values, right = torch.linalg.svd(layer.weight.detach().double(), full_matrices=False)
    rank = min(rank, len(values))
    roots = values[:rank].sqrt()
    parts = (left[:, :rank] * roots, roots[:, None] * right[:rank])
    return Factored(*(part.to(layer.weight.dtype).contiguous() for part in parts), layer.bias)


class FactoredLinear(nn.Module):
    """The plain way: both products, one after the other, with all outputs."""

    def __init__(self, parts: Factored) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        return self.parts.widen(self.parts.narrow(x))


def attend(
    x: Tensor,
    query: Factored,
    key: Factored,
    value: Factored,
    out: Factored,
    heads: int,
    causal: bool = False,
    mask: Tensor | None = None,
    at_once: int = 1,
) -> Tensor:
    """Self-attention of x (B, T, d), `at_once` heads at a time. mask: as of scaled_dot_product_attention, (B, 1, T, T)
    or what broadcasts to it."""
    size = len(query.left) // heads
    narrow = [layer.narrow(x) for layer in (query, key, value)]
    total: Tensor | None = None
    for first in range(0, heads, at_once):
        units = slice(first * size, min(heads, first + at_once) * size)
        split = [
            layer.widen(part, units).unflatten(-1, (-1, size)).transpose(1, 2)
            for layer, part in zip((query, key, value), narrow, strict=True)
        ]
        mixed = F.scaled_dot_product_attention(*split, attn_mask=mask, is_causal=causal)
        part = F.linear(mixed.transpose(1, 2).flatten(2), out.right[:, units])
        del split, mixed
        total = part if total is None else total.add_(part)
    del narrow
    return out.widen(total)


def feed_forward(
    x: Tensor, first: Factored, second: Factored, activation: Callable[[Tensor], Tensor], tile: int
) -> Tensor:
    """x (…, d) through both layers, `tile` hidden units at a time."""
    narrow, hidden = first.narrow(x), len(first.left)
    total: Tensor | None = None
    for start in range(0, hidden, tile):
        units = slice(start, min(hidden, start + tile))
        part = F.linear(activation(first.widen(narrow, units)), second.right[:, units])
        total = part if total is None else total.add_(part)
    del narrow
    return second.widen(total)


class StreamedAttention(nn.Module):
    """In the place of models.vit.Attention."""

    def __init__(self, attention: Attention, parts: list[Factored], at_once: int) -> None:
        super().__init__()
        self.parts, self.heads, self.causal, self.at_once = parts, attention.heads, attention.causal, at_once

    def forward(self, x: Tensor) -> Tensor:
        return attend(x, *self.parts, self.heads, self.causal, at_once=self.at_once)


class StreamedFeedForward(nn.Module):
    """In the place of a block's two layers with an activation between them."""

    def __init__(self, parts: list[Factored], activation: Callable[[Tensor], Tensor], tile: int) -> None:
        super().__init__()
        self.parts, self.activation, self.tile = parts, activation, tile

    def forward(self, x: Tensor) -> Tensor:
        return feed_forward(x, *self.parts, self.activation, self.tile)


class StreamedBertLayer(nn.Module):
    """In the place of a BertLayer without a cache, cross attention or dropout at work."""

    def __init__(self, layer: Any, attention: list[Factored], forward: list[Factored], tile: int, at_once: int) -> None:
        super().__init__()
        self.parts, self.heads, self.at_once = attention, layer.attention.self.num_attention_heads, at_once
        self.causal = layer.attention.self.is_causal  # of a decoder, which is given no mask where it may go without
        self.norms = nn.ModuleList([layer.attention.output.LayerNorm, layer.output.LayerNorm])
        self.feed_forward = StreamedFeedForward(forward, layer.intermediate.intermediate_act_fn, tile)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        causal = self.causal and attention_mask is None
        mixed = attend(hidden_states, *self.parts, self.heads, causal, attention_mask, self.at_once)
        x = self.norms[0](mixed.add_(hidden_states))
        return self.norms[1](self.feed_forward(x).add_(x))


BLOCK = (("attention.query", "attention.key", "attention.value", "attention.out"), ("mlp.0", "mlp.2"))
BERT = (
    ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    ("intermediate.dense", "output.dense"),
)


def streamable(model: nn.Module) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Name of each layer that can be streamed -> names of its linear layers: of attention, and of the feed-forward
    part. Raises ValueError for a model without any."""
    found = {}
    for name, module in model.named_modules():
        kinds = BLOCK if isinstance(module, Block) else BERT if type(module).__name__ == "BertLayer" else None
        if kinds is not None:
            found[name] = tuple(tuple(f"{name}.{part}" for part in kind) for kind in kinds)
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no layer that is streamed: this takes vit_tiny, char_gpt, small_gpt and minilm"
        )
    return found


def factorize(model: nn.Module, ranks: Mapping[str, int]) -> dict[str, Factored]:
    """Factors of a model's layers, by name."""
    return {name: factored(model.get_submodule(name), rank) for name, rank in ranks.items()}


def plain(model: nn.Module, factors: Mapping[str, Factored]) -> None:
    """Put factors in the place of these layers of a model; all activations are formed."""
    for name, parts in factors.items():
        _put(model, name, FactoredLinear(parts))


def stream(model: nn.Module, factors: Mapping[str, Factored], tile: int = 256, at_once: int = 1) -> None:
    """Let a model stream all layers of `streamable`, whose factors these are, by name; others become `plain`.

    tile: hidden units at a time. at_once: heads at a time. For use only, in eval mode: nothing is trained or dropped.
    """
    layers = streamable(model)
    streamed = {name for parts in layers.values() for kind in parts for name in kind}
    plain(model, {name: parts for name, parts in factors.items() if name not in streamed})
    for name, kinds in layers.items():
        layer, (attention, forward) = model.get_submodule(name), ([factors[n] for n in names] for names in kinds)
        if isinstance(layer, Block):
            layer.attention = StreamedAttention(layer.attention, attention, at_once)
            layer.mlp = StreamedFeedForward(forward, layer.mlp[1], tile)
        else:
            _put(model, name, StreamedBertLayer(layer, attention, forward, tile, at_once))


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
