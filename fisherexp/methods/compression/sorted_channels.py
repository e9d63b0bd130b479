"""Where the channels of sorted transformer layers lie, and what is left of them at a rate."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fisherexp.models.transformer_layers import TransformerLayer

MOST = 0.85  # of a layer's channels that can be cut, published


class Places(NamedTuple):
    """Rows (n,) and columns (m,) of a matrix, those that matter most first; None where they stay in their order, for
    none is cut. The unit is how many of them go together."""

    rows: Tensor | None
    columns: Tensor | None
    unit: int


def kept(length: int, unit: int, share: float) -> int:
    """Of a number of rows or columns, when this share is cut: whole units, one at least."""
    return unit * max(1, round(length / unit * (1 - min(share, MOST))))


def places(layer: TransformerLayer, pairs: Tensor, size: int, hidden: int) -> dict[str, Places]:
    """Of a sorted layer's matrices that are cut, by name. pairs (K, p): order of each key's channels, or pairs of them.

    size: d, channels of a head. hidden: units of the feed-forward part. Queries, keys, values and outputs go by rank
    first and then by head, so that all heads lose the same number.
    """
    order = torch.stack([pairs, pairs + pairs.shape[1]], -1).flatten(1) if layer.rotary else pairs
    together = 2 if layer.rotary else 1
    plain = torch.arange(size).expand(layer.key_heads, -1)

    def by_rank(channels: Tensor, heads: int) -> Tensor:
        of_heads = channels.cpu().repeat_interleave(heads // len(channels), 0)
        return (of_heads + size * torch.arange(heads)[:, None]).T.flatten()

    found = {
        layer.query: Places(by_rank(order, layer.heads), None, together * layer.heads),
        layer.key: Places(by_rank(order, layer.key_heads), None, together * layer.key_heads),
        layer.value: Places(by_rank(plain, layer.key_heads), None, layer.key_heads),
        layer.output: Places(None, by_rank(plain, layer.heads), layer.heads),
    }
    units = torch.arange(hidden)
    found |= {name: Places(units, None, 1) for name in layer.up}
    return found | ({layer.down: Places(None, units, 1)} if layer.down else {})


@contextmanager
def without(model: nn.Module, found: Mapping[str, Places], shares: Mapping[str, float]) -> Iterator[None]:
    """In here a sorted model computes as if of each matrix this share of rows or columns were cut; by names."""
    hooks = []

    def mask(order: Tensor, share: float, unit: int) -> Tensor:
        marks = torch.zeros(len(order))
        marks[order[: kept(len(order), unit, share)]] = 1
        return marks

    def before(marks: Tensor) -> Any:
        return lambda layer, given: (given[0] * marks.to(given[0]), *given[1:])

    def after(marks: Tensor) -> Any:
        return lambda layer, given, out: out * marks.to(out)

    for name, place in found.items():
        layer, share = model.get_submodule(name), shares[name]
        if place.columns is not None:
            hooks.append(layer.register_forward_pre_hook(before(mask(place.columns, share, place.unit))))
        else:
            hooks.append(layer.register_forward_hook(after(mask(place.rows, share, place.unit))))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def drawn(rates: Sequence[float]) -> float:
    """One of the rates, larger ones more often: in falling order they weigh exp(-i / 10), as published."""
    falling = sorted(rates, reverse=True)
    return falling[int(torch.multinomial(torch.exp(-0.1 * torch.arange(len(falling))), 1))]
