"""What a layer's inputs are like, summed in float64 over the rows x (N, m) that its matrix is applied to."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from .layers import input_rows, matrix


class LayerStats:
    """width: m. full: sum x xᵀ, not its diagonal alone. keep: how many of the first rows stay as they are, for what no
    sum can tell."""

    def __init__(self, width: int, full: bool = True, keep: int = 0) -> None:
        self.width, self.full, self.keep = width, full, keep
        self.count = torch.zeros((), dtype=torch.float64)
        self.products = torch.zeros((width, width) if full else (width,), dtype=torch.float64)
        self.magnitudes = torch.zeros(width, dtype=torch.float64)
        self.largest = torch.zeros(width, dtype=torch.float64)
        self.largest_batch_mean = torch.zeros(width, dtype=torch.float64)
        self.rows = torch.zeros(0, width)

    def add(self, x: Tensor) -> None:
        """Rows (N, m) of one batch."""
        if not len(x):
            return
        if self.products.device != x.device:
            self.load({name: value.to(x.device) for name, value in self.state().items()})
        wide = x.detach().double()
        sizes = wide.abs()
        self.count = self.count + len(x)
        self.products += wide.T @ wide if self.full else wide.square().sum(0)
        self.magnitudes += sizes.sum(0)
        self.largest = torch.maximum(self.largest, sizes.amax(0))
        self.largest_batch_mean = torch.maximum(self.largest_batch_mean, sizes.mean(0))
        if (missing := self.keep - len(self.rows)) > 0:
            self.rows = torch.cat([self.rows, x.detach()[:missing].to(self.rows)])

    @property
    def second_moment(self) -> Tensor:
        """E[x xᵀ] (m, m), or its diagonal (m,) where only that was summed."""
        return self.products / self.count

    @property
    def mean_square(self) -> Tensor:
        """E[x²] (m,)."""
        return self.second_moment.diagonal() if self.full else self.second_moment

    @property
    def mean_magnitude(self) -> Tensor:
        """E|x| (m,)."""
        return self.magnitudes / self.count

    def squared_output(self, delta: Tensor) -> Tensor:
        """E‖Δ x‖² of Δ (n, m); with a diagonal alone, as if inputs were uncorrelated."""
        moment, delta = self.second_moment, delta.double()
        weighted = delta @ moment if self.full else delta * moment
        return (weighted * delta).sum().clamp_min(0.0)

    def state(self) -> dict[str, Tensor]:
        """All that was summed, for `load`."""
        names = ("count", "products", "magnitudes", "largest", "largest_batch_mean", "rows")
        return {name: getattr(self, name) for name in names}

    def load(self, state: Mapping[str, Tensor]) -> None:
        for name, value in state.items():
            setattr(self, name, value.clone())


class _AllSeen(Exception):
    """Every layer has been called: what is left of the forward pass has nothing to show."""


class Collector:
    """Statistics of some layers of a model, in as many forward passes as are made while it watches.

    Layers that are called one after the other with the very same tensor, as query, key and value are, share theirs.
    Where the first pass calls every layer once, later ones end at the last of these calls: no layer may be called
    oftener for other inputs.

    layers: names. max_width: layers with more inputs have the diagonal alone. keep: rows that stay, see LayerStats.
    whole: every pass goes to its end, for others that look at outputs.
    """

    def __init__(
        self, model: nn.Module, layers: Iterable[str], max_width: int, keep: int = 0, whole: bool = False
    ) -> None:
        self.model, self.layers = model, {name: model.get_submodule(name) for name in layers}
        self.max_width, self.keep = max_width, keep
        self.stats: dict[str, LayerStats] = {}
        self.once = False if whole else None  # whether the first pass called every layer once

    @property
    def diagonal(self) -> list[str]:
        """Layers with too many inputs for more than the diagonal."""
        return [name for name, stats in self.stats.items() if not stats.full]

    @property
    def num_bytes(self) -> int:
        """Of all sums, those that are shared once."""
        tensors = {id(t): t for stats in self.stats.values() for t in stats.state().values()}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

    @torch.no_grad()
    def look(self, inputs: Any, mask: Tensor | None = None, run: Callable[[Any], Any] | None = None) -> None:
        """One forward pass. mask: of tokens (B, T) that count. run: makes the pass in place of the model's call."""
        calls: Counter[str] = Counter()
        with self._watching(mask, calls), suppress(_AllSeen):
            (run or self.model)(inputs)
        if self.once is None:
            self.once = [*calls.values()] == [1] * len(self.layers)

    @contextmanager
    def _watching(self, mask: Tensor | None, calls: Counter[str]) -> Iterator[None]:
        last: list[tuple[Tensor, int, str]] = []

        def add(name: str, layer: nn.Module, x: Tensor) -> None:
            version = 0 if x.is_inference() else x._version  # one more for each change in place
            if last and last[0][0] is x and last[0][1] == version and not isinstance(layer, nn.Conv2d):
                owner = last[0][2]
                if self.stats.setdefault(name, self.stats[owner]) is self.stats[owner]:
                    return
            last[:] = [(x, version, name)]
            self._of(name).add(input_rows(layer, x, mask))

        def hook(name: str) -> Any:
            def called(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
                add(name, layer, given[0])
                calls[name] += 1
                if self.once and len(calls) == len(self.layers):
                    raise _AllSeen

            return called

        hooks = [layer.register_forward_pre_hook(hook(name)) for name, layer in self.layers.items()]
        try:
            yield
        finally:
            for each in hooks:
                each.remove()

    def _of(self, name: str) -> LayerStats:
        if name not in self.stats:
            width = matrix(self.layers[name]).shape[1]
            self.stats[name] = LayerStats(width, width <= self.max_width, self.keep)
        return self.stats[name]

    def state(self) -> dict[str, Any]:
        """The sums, each once, and which layers share them; for `load`."""
        owners: dict[int, str] = {}
        shared = {name: owners.setdefault(id(stats), name) for name, stats in self.stats.items()}
        return {"shared": shared, "sums": {owner: self.stats[owner].state() for owner in set(shared.values())}}

    def load(self, state: Mapping[str, Any]) -> None:
        self.stats = {}
        for name, owner in state["shared"].items():
            if owner == name:
                self._of(name).load(state["sums"][name])
            else:
                self.stats[name] = self.stats[owner]
