"""What queries, keys and whole layers of a transformer put out, summed over the tokens that count."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelStatistics:
    """projections: names of linear layers, whose outputs' squares are summed. layers: names of transformer layers,
    whose inputs are compared with their outputs. Sums are float64."""

    def __init__(self, model: nn.Module, projections: Iterable[str], layers: Iterable[str]) -> None:
        self.modules = {name: model.get_submodule(name) for name in (*projections, *layers)}
        self.projections, self.layers = set(projections), list(layers)
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    @contextmanager
    def watching(self, mask: Tensor | None) -> Iterator[None]:
        """In here the model's passes are summed up. mask: of tokens (B, T) that count."""

        def counted(x: Tensor) -> Tensor:
            return x[mask.bool()] if mask is not None and x.shape[:-1] == mask.shape else x.flatten(0, -2)

        def hook(name: str) -> Any:
            def add(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
                out = counted(out[0] if isinstance(out, tuple) else out).detach().double()
                if name in self.projections:
                    found = out.square().sum(0)
                else:
                    before = counted(given[0] if given else named["hidden_states"]).detach().double()
                    found = F.cosine_similarity(before, out, dim=-1).sum()
                self.sums[name] = self.sums.get(name, 0) + found
                self.counts[name] = self.counts.get(name, 0) + len(out)

            return add

        hooks = [m.register_forward_hook(hook(name), with_kwargs=True) for name, m in self.modules.items()]
        try:
            yield
        finally:
            for each in hooks:
                each.remove()

    def mean_square(self, name: str) -> Tensor:
        """E y² (n,) of a linear layer."""
        return self.sums[name] / self.counts[name]

    def similarity(self) -> Tensor:
        """Mean cosine of input and output of each layer, (L,)."""
        return torch.stack([self.sums[name] / self.counts[name] for name in self.layers])

    def state(self) -> dict[str, Any]:
        """All that was summed, for `load`."""
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load(self, state: Mapping[str, Any]) -> None:
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])
