"""What becomes of a model without one of its heads, or without some channels of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.methods.spectral.attention_heads import Layer
from fisherexp.metrics.composition import Heads, without_channels
from fisherexp.objectives.token_prediction import IGNORED


@contextmanager
def writing(layer: Layer, outputs: Tensor) -> Iterator[None]:
    """In here the heads of a layer write by these W_O (H, h, d)."""
    kept = layer.output.weight.detach().clone()
    with torch.no_grad():
        try:
            layer.output.weight.copy_(outputs.flatten(0, 1).T)
            yield
        finally:
            layer.output.weight.copy_(kept)


def without_head(layer: Layer, head: int) -> Tensor:
    """W_O (H, h, d) of a layer of which one head writes nothing."""
    outputs = layer.heads.output.clone()
    outputs[head] = 0
    return outputs


def without(layer: Layer, head: int, removed: Tensor, found: Any) -> Tensor:
    """W_O (H, h, d) of a layer of which one head lacks the channels that `removed` (h,) marks. found: its Channels."""
    outputs = layer.heads.output.clone()
    one = Heads(*(part[head : head + 1] for part in layer.heads))
    of_one = type(found)(*(part[head : head + 1] for part in found))
    outputs[head] = without_channels(one, of_one, removed[None])[0].to(outputs)
    return outputs


@torch.no_grad()
def share_right(function: Callable[[Any], Tensor], batches: Sequence[Any]) -> float:
    """% of the targets, those that count, that have the largest logit."""
    right = counted = 0
    for batch in batches:
        counts = batch.targets != IGNORED
        right += int(((function(batch.inputs).argmax(-1) == batch.targets) & counts).sum())
        counted += int(counts.sum())
    return 100 * right / counted


@torch.no_grad()
def attention_to_previous(layer: Layer, positions: nn.Embedding) -> Tensor:
    """How much of its attention each head gives to the place before, (H,), by learned positions alone: the mean over
    places but the first, causal, of what is left of a query and a key once all tokens are the same."""
    places = positions.weight.double()
    centred = places - places.mean(1, keepdim=True)
    normed = centred / centred.square().mean(1, keepdim=True).sqrt()
    query, key = layer.heads.query.double(), layer.heads.key.double()
    logits = (normed @ query) @ (normed @ key).mT / query.shape[-1] ** 0.5
    later = torch.ones(len(places), len(places), dtype=torch.bool).triu(1).to(logits.device)
    return logits.masked_fill(later, -torch.inf).softmax(-1).diagonal(-1, -2, -1).mean(-1)
