"""Grids that a training moves: StatsQ and LSQ, with straight-through gradients.

A number w is stored as a b-bit integer k = round(z), and decodes to unit · (k + offset); z is its position on the grid.

    StatsQ (OFQ, arXiv 2302.02210), of each row, n = 2^(b-1):
        s = 2 mean|w|, without gradient,   z = clamp(w / s, -1, 1 - 1e-6) n - 1/2,   unit = s / n,   offset = 1/2
        gradient: that of the identity, of clipped weights, too. Levels are symmetric, and zero is none of them.
    LSQ (arXiv 1902.08153), of each row or channel:
        z = clamp(w / unit, -n, n - 1),   unit learned, its gradient times 1/√((n - 1) · numbers that share it)
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


class StraightThrough(torch.autograd.Function):
    """The first argument, with the gradient of the second."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, like: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[None, Tensor]:
        return None, gradient


class ScaledGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.clone()

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * gradient, None


class StatsQ(nn.Module):
    """Of weights (m, n), one scale a row. bits: at least 2, for with one the clamp lies on a tie of rounding."""

    offset = 0.5

    def __init__(self, bits: int) -> None:
        super().__init__()
        if bits < 2:
            raise ValueError(f"StatsQ needs at least 2 bits, got {bits}")
        self.bits, self.half = bits, 2 ** (bits - 1)

    def unit(self, weight: Tensor) -> Tensor:
        """(m, 1)"""
        scale = 2 * weight.detach().abs().mean(dim=1, keepdim=True)
        return scale.clamp_min(torch.finfo(weight.dtype).tiny * self.half) / self.half

    @torch.no_grad()
    def position(self, weight: Tensor) -> Tensor:
        """z (m, n)"""
        scale = self.unit(weight) * self.half
        return (weight / scale).clamp(-1, 1 - 1e-6) * self.half - self.offset

    def forward(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            rounded = self.unit(weight) * (self.position(weight).round() + self.offset)
        return StraightThrough.apply(rounded, weight)


class LSQ(nn.Module):
    """One unit for each of `size` rows (dim=0) or channels (dim=-1), set by the first numbers that come to
    2 mean|w| / √(n - 1), and at least 1e-5."""

    offset = 0.0

    def __init__(self, bits: int, size: int, dim: int) -> None:
        super().__init__()
        self.bits, self.half, self.dim = bits, 2 ** (bits - 1), dim
        self.step = nn.Parameter(torch.ones(size))
        self.register_buffer("ready", torch.tensor(False))

    def unit(self, values: Tensor) -> Tensor:
        """In a shape that goes with the values: (m, 1) of rows, (n,) of channels."""
        if not self.ready:
            with torch.no_grad():
                others = [d for d in range(values.ndim) if d != self.dim % values.ndim]
                self.step.copy_(2 * values.abs().mean(dim=others) / (self.half - 1) ** 0.5)
                self.ready.fill_(True)
        step = self.step.clamp_min(1e-5)
        return step[:, None] if self.dim == 0 else step

    @torch.no_grad()
    def position(self, values: Tensor) -> Tensor:
        """z, in the shape of the values."""
        return (values / self.unit(values)).clamp(-self.half, self.half - 1)

    def forward(self, values: Tensor) -> Tensor:
        shared = values.numel() / len(self.step)
        unit = ScaledGradient.apply(self.unit(values), ((self.half - 1) * shared) ** -0.5)
        position = (values / unit).clamp(-self.half, self.half - 1)
        return unit * StraightThrough.apply(position.round(), position)


class ShiftedLSQ(nn.Module):
    """Of activations (…, c): LSQ for each channel, with a learned shift before it and another behind it (LSQ+)."""

    def __init__(self, bits: int, channels: int) -> None:
        super().__init__()
        self.before, self.after = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))
        self.grid = LSQ(bits, channels, dim=-1)

    def forward(self, values: Tensor) -> Tensor:
        return self.grid(values + self.before) + self.after


@torch.no_grad()
def frozen(position: Tensor, band: float) -> Tensor:
    """Confident numbers: farther than `band` from each boundary k + 1/2 between two codes that the matrix has."""
    codes = position.round()
    boundary = position.floor() + 0.5
    inner = (boundary > codes.min()) & (boundary < codes.max())
    return ((position - boundary).abs() > band) | ~inner
