"""NormalFloat quantization with quantized block scales (QLoRA, arXiv 2305.14314; LQ-LoRA, arXiv 2311.12023).

A block of weights is stored as its largest magnitude and, for each weight, the number of the nearest point of a grid of
2^b normal quantiles. The scales of a group of blocks are stored as b0-bit integers between the group's smallest and
largest, and those two as floats. What is computed here is what the stored form decodes to, and how large it is.

Where LQ-LoRA's code differs: the smallest scale it subtracts is that of the whole matrix (offset=matrix), and it counts
one float per group. Here each group has its own by default, and both its floats are counted.
QLoRA subtracts the mean scale of the matrix and stores 8-bit floats, which is not offered.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from scipy.stats import norm
from torch import Tensor

# Quantile of the outermost point before scaling: that of QLoRA.
OFFSET = 0.9677083


@dataclass(frozen=True)
class NormalFloat:
    """bits: b, per weight. scale_bits: b0, per block. scale_type: of the floats of a group, a torch dtype's name.
    block: weights per scale. group: scales per pair of floats. offset: what scales are stored relative to, the smallest
    of their group or of the whole matrix.
    """

    bits: int
    scale_bits: int = 8
    scale_type: str = "float32"
    block: int = 64
    group: int = 256
    offset: Literal["group", "matrix"] = "group"

    @property
    def size(self) -> float:
        """Bits per weight, b + b0 / block + (floats of a group) · (bits of a float) / (block · group), a group having
        two floats, or one with the offset of the matrix, which is not counted."""
        floats = (2 if self.offset == "group" else 1) * torch.finfo(getattr(torch, self.scale_type)).bits
        return self.bits + self.scale_bits / self.block + floats / (self.block * self.group)

    def __call__(self, weight: Tensor) -> Tensor:
        """The weights (any shape) as their stored form decodes: same shape and type."""
        flat = weight.flatten().double()
        blocks = _padded(flat, self.block)
        scales = self.decoded_scales(blocks.abs().amax(dim=1))[:, None]
        points = grid(self.bits).to(blocks.device)
        edges = (points[1:] + points[:-1]) / 2
        # A weight half way between two points goes to the lower one. A block of zeros has the scale zero.
        numbers = torch.bucketize(blocks / scales.where(scales > 0, 1.0), edges)
        return (points[numbers] * scales).flatten()[: len(flat)].view_as(weight).to(weight)

    def decoded_scales(self, scales: Tensor) -> Tensor:
        """Scales (n,) as their stored form decodes. The last group is filled up with its last scale."""
        groups = _padded(scales, self.group, float(scales[-1]))
        floats = getattr(torch, self.scale_type)
        low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
        if self.offset == "matrix":
            low = scales.min()
            span = (high - low).to(floats).to(groups)
        else:
            low, high = (edge.to(floats).to(groups) for edge in (low, high))
            span = high - low
        step = span / (2**self.scale_bits - 1)
        numbers = ((groups - low) / step.where(step > 0, 1.0)).round().clamp(0, 2**self.scale_bits - 1)
        return (low + numbers * step).flatten()[: len(scales)]


@cache
def grid(bits: int) -> Tensor:
    """The 2^bits points, rising, float64: normal quantiles scaled so that the ends are ±1, with one zero.

    2^(bits-1) of them are positive and one less negative.
    """
    half = 2 ** (bits - 1)
    positive = torch.tensor(norm.ppf(torch.linspace(OFFSET, 0.5, half + 1, dtype=torch.float64)[:-1]))
    negative = -torch.tensor(norm.ppf(torch.linspace(OFFSET, 0.5, half, dtype=torch.float64)[:-1]))
    points = torch.cat([negative, torch.zeros(1, dtype=torch.float64), positive.flip(0)])
    return points / positive[0]


def _padded(flat: Tensor, size: int, value: float = 0.0) -> Tensor:
    """(n,) as rows of `size`, the last one filled up."""
    return torch.nn.functional.pad(flat, (0, -len(flat) % size), value=value).view(-1, size)
