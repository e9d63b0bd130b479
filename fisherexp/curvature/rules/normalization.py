"""Normalization layers: y = x̂ ∘ w + b with x̂ the input normalized by statistics that belong to one sample.

Per-sample gradients: Σ_positions g ∘ x̂ for w and Σ_positions g for b. x̂ is recomputed from the saved *input*
(a later in-place addition may overwrite the output, but never the input).
Layer norm: Ba et al. 2016. Group norm: Wu & He 2018. RMS norm: Zhang & Sennrich 2019. Batch norm with stored
statistics: Ioffe & Szegedy 2015; with batch statistics samples are coupled and no per-sample gradient exists.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..layout import batch_first
from .base import Call, Use, chunks

CACHE_BYTES = 2**21  # a few samples at a time: x̂ and its product with g stay in cache


class CoupledSamples(ValueError):
    """The samples of a batch influence each other where per-sample gradients were asked for."""


class BatchStatistics(CoupledSamples):
    """Batch norm that uses batch statistics was met where per-sample gradients were asked for."""

    def __init__(self, name: str):
        super().__init__(
            f"{name} normalizes with the statistics of the batch, so a sample has no gradient of its own. Remedy: "
            "keep running statistics (track_running_stats=True) and evaluate in eval mode, replace the layer by "
            "GroupNorm, or ask for gradients='batch_mean'."
        )


class Normalization(Use):
    """Shared by all: `normalized` gives x̂, `channel` the axis of y that w indexes (None: the last axes)."""

    channel: int | None = None
    recurring = True

    def normalized(self, x: Tensor) -> Tensor:
        """x̂ of some samples' inputs, in their layout, as a tensor of its own."""
        raise NotImplementedError

    def normal_rows(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """x̂ of the samples `rows`, samples first."""
        x, axis = self.unchanged(), self.call.step.output
        if axis == (0, True):  # the usual case: only these are normalized
            each, (start, stop, _) = x.shape[0] // self.call.batch, rows.indices(self.call.batch)
            some = self.normalized(x[start * each : stop * each].to(dtype))
            return some if each == 1 else some.unflatten(0, (-1, each))
        return batch_first(self.normalized(x.to(dtype)), axis, self.call.batch)[rows]

    def per_sample(self, slot, g, rows):
        shape = self.slots[slot].value.shape
        g = g[rows]
        if slot == "weight":
            g = self.normal_rows(rows, g.dtype).mul_(g)
        if self.channel is None:
            return g.reshape(g.shape[0], -1, *shape).sum(1)
        # Axis 1 of y counts channels; an axis split off the batch axis would precede it.
        extra = g.dim() - self.saved.dim()
        others = [d for d in range(1, g.dim()) if d != 1 + extra]
        return g.sum(others) if others else g

    def add_squares(self, g, totals, last=True):
        for rows in chunks(g.shape[0], g[0].numel() * g.element_size(), CACHE_BYTES, g.device.type):
            for slot, total in totals.items():
                total += self.per_sample(slot, g, rows).square().sum(0)


class LayerNorm(Normalization):
    """`F.layer_norm(input, normalized_shape, weight, bias, eps)`."""

    def __init__(self, call, input, normalized_shape, weight=None, bias=None, eps=1e-5):
        super().__init__(call, weight=weight, bias=bias)
        self.save(input)
        self.shape, self.eps = list(normalized_shape), eps

    def normalized(self, x):
        return F.layer_norm(x, self.shape, None, None, self.eps)


class RMSNorm(Normalization):
    """`F.rms_norm(input, normalized_shape, weight, eps)`."""

    def __init__(self, call, input, normalized_shape, weight=None, eps=None):
        super().__init__(call, weight=weight)
        self.save(input)
        self.shape = list(normalized_shape)
        self.eps = torch.finfo(input.dtype).eps if eps is None else eps

    def normalized(self, x):
        return F.rms_norm(x, self.shape, None, self.eps)


class GroupNorm(Normalization):
    """`F.group_norm(input, num_groups, weight, bias, eps)`."""

    channel = 1

    def __init__(self, call, input, num_groups, weight=None, bias=None, eps=1e-5):
        super().__init__(call, weight=weight, bias=bias)
        self.save(input)
        self.groups, self.eps = num_groups, eps

    def normalized(self, x):
        return F.group_norm(x, self.groups, None, None, self.eps)


class BatchNorm(Normalization):
    """`F.batch_norm` with stored statistics."""

    channel = 1

    def __init__(
        self,
        call: Call,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ):
        super().__init__(call, weight=weight, bias=bias)
        if training or running_mean is None:
            raise BatchStatistics(f"BatchNorm ({self.name})")
        self.save(input)
        self.mean, self.var, self.eps = running_mean, running_var, eps

    def normalized(self, x):
        mean, var = self.mean.to(x.dtype), self.var.to(x.dtype)
        return F.batch_norm(x, mean, var, None, None, False, 0.0, self.eps)


RULES = {
    F.layer_norm: LayerNorm,
    F.rms_norm: RMSNorm,
    F.group_norm: GroupNorm,
    F.batch_norm: BatchNorm,
}
