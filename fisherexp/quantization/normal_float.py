"""NormalFloat quantization with quantized block scales (QLoRA, arXiv 2305.14314; LQ-LoRA, arXiv 2311.12023).

A block of weights is stored as its largest magnitude and, for each weight, the number of the nearest point of a grid of
2^b normal quantiles. The scales of a group of blocks are stored as b0-bit integers between the group's smallest and
largest, and those two as floats.

Where LQ-LoRA's code differs: the smallest scale it subtracts is that of the whole matrix (offset=matrix), and it counts
one float per group. Here each group has its own by default, and both its floats are counted.
QLoRA subtracts the mean scale of the matrix and stores 8-bit floats, which is not offered.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Literal

import torch
from torch import Size, Tensor

from .format import Format, Parts
from .packing import pack, unpack

# Quantile of the outermost point before scaling: that of QLoRA.
OFFSET = 0.9677083


@dataclass(frozen=True)
class NormalFloat(Format):
    """bits: b, per weight. scale_bits: b0, per block; None to store each scale as a float (LoftQ). scale_type: of the
    floats, a torch dtype's name. block: weights per scale, in row-major order. group: scales per pair of floats.
    offset: what scales are stored relative to, the smallest of their group or of the whole matrix.
    """

    bits: int
    scale_bits: int | None = 8
    scale_type: str = "float32"
    block: int = 64
    group: int = 256
    offset: Literal["group", "matrix"] = "group"

    def __post_init__(self) -> None:
        grid(self.bits)  # made once a process: now, and not where memory is counted, which would be another then

    @property
    def size(self) -> float:
        """Bits per weight, b + b0 / block + (floats of a group) · (bits of a float) / (block · group), a group having
        two floats, or one with the offset of the matrix, which is not counted."""
        float_bits = torch.finfo(self._floats).bits
        if self.scale_bits is None:
            return self.bits + float_bits / self.block
        floats = (2 if self.offset == "group" else 1) * float_bits
        return self.bits + self.scale_bits / self.block + floats / (self.block * self.group)

    def encode(self, weight: Tensor) -> Parts:
        """The tensors that are stored in place of a weight of any shape."""
        blocks = _padded(weight.flatten().double(), self.block)
        stored = self._stored_scales(blocks.abs().amax(dim=1))
        scales = self._scales(stored, len(blocks))[:, None]
        points = grid(self.bits).to(blocks.device)
        edges = (points[1:] + points[:-1]) / 2
        # A weight half way between two points goes to the lower one. A block of zeros has the scale zero.
        numbers = torch.bucketize(blocks / scales.where(scales > 0, 1.0), edges)
        return {"codes": pack(numbers.flatten()[: weight.numel()], self.bits), **stored}

    def decode(self, parts: Mapping[str, Tensor], shape: Size | tuple[int, ...]) -> Tensor:
        count = prod(shape)
        codes = unpack(parts["codes"], self.bits, count)
        scales = self._scales(parts, -(-count // self.block)).repeat_interleave(self.block)[:count]
        return (grid(self.bits).to(codes.device)[codes] * scales).view(shape)

    def decoded_scales(self, scales: Tensor) -> Tensor:
        """Scales (n,) as their stored form decodes. The last group is filled up with its last scale."""
        return self._scales(self._stored_scales(scales), len(scales))

    @property
    def _floats(self) -> torch.dtype:
        return getattr(torch, self.scale_type)

    def _stored_scales(self, scales: Tensor) -> Parts:
        if self.scale_bits is None:
            return {"scales": scales.to(self._floats)}
        groups = _padded(scales, self.group, float(scales[-1]))
        low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
        if self.offset == "matrix":
            low = scales.min()
            stored = {"lowest": low.double(), "spans": (high - low).to(self._floats)}
        else:
            stored = {"lows": low.to(self._floats), "highs": high.to(self._floats)}
        low, step = self._steps(stored)
        numbers = ((groups - low) / step.where(step > 0, 1.0)).round().clamp(0, 2**self.scale_bits - 1)
        return stored | {"scale_codes": pack(numbers.flatten()[: len(scales)].long(), self.scale_bits)}

    def _scales(self, parts: Mapping[str, Tensor], count: int) -> Tensor:
        if self.scale_bits is None:
            return parts["scales"].double()
        low, step = self._steps(parts)
        numbers = _padded(unpack(parts["scale_codes"], self.scale_bits, count).double(), self.group)
        return (low + numbers * step).flatten()[:count]

    def _steps(self, parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The smallest scale of each group and the step between two, float64."""
        if self.offset == "matrix":
            low, span = parts["lowest"], parts["spans"].double()
        else:
            low = parts["lows"].double()
            span = parts["highs"].double() - low
        return low, span / (2**self.scale_bits - 1)


@cache
def grid(bits: int) -> Tensor:
    """The 2^bits points, rising, float64: normal quantiles scaled so that the ends are ±1, with one zero.

    2^(bits-1) of them are positive and one less negative.
    """
    half = 2 ** (bits - 1)
    positive = torch.special.ndtri(torch.linspace(OFFSET, 0.5, half + 1, dtype=torch.float64)[:-1])
    negative = -torch.special.ndtri(torch.linspace(OFFSET, 0.5, half, dtype=torch.float64)[:-1])
    points = torch.cat([negative, torch.zeros(1, dtype=torch.float64), positive.flip(0)])
    return points / positive[0]


def _padded(flat: Tensor, size: int, value: float = 0.0) -> Tensor:
    """(n,) as rows of `size`, the last one filled up."""
    return torch.nn.functional.pad(flat, (0, -len(flat) % size), value=value).view(-1, size)
