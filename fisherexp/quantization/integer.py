"""Round to nearest on an even grid, a scale for each group of inputs. Published code calls four grids by one name.

    w ≈ s (q - z),   q = clamp(round(w / s) + z) in b bits, round half to even

    grid                   s                               q - z                            used by
    symmetric_full         2 max|w| / (2^b - 1)            -2^(b-1) … 2^(b-1) - 1           GPTQ's `sym`, EoRA, UniQL
    symmetric_restricted   max|w| / (2^(b-1) - 1)          -(2^(b-1) - 1) … 2^(b-1) - 1     SVDQuant
    asymmetric             (max w - min w) / (2^b - 1)     -z … 2^b - 1 - z, z rounded      GPTQ, SparseGPT
    mx                     2^(⌊log2 max|w|⌋ - b + 2)       -(2^(b-1) - 1) … 2^(b-1) - 1     QERA, LQER (MXINT)

At two bits the restricted grid and mx have three values. The asymmetric range always contains 0. On the full grid the
largest positive weight is not exactly representable, on mx it can lose up to a step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Size, Tensor

from .format import Format, Parts
from .packing import pack, unpack

Grid = Literal["symmetric_full", "symmetric_restricted", "asymmetric", "mx"]
BIAS = 127  # of the exponent that mx stores in a byte


@dataclass(frozen=True)
class Integer(Format):
    """bits: b, 2 to 8. group: inputs that share a scale; None for all of a row. grid: see above.

    Scales are stored as `scale_type`, a torch dtype's name, and weights rounded on the scale as it is stored; those of
    mx are an exponent of eight bits. z is stored in b bits.
    """

    bits: int
    group: int | None = None
    grid: Grid = "symmetric_full"
    scale_type: str = "float16"

    def encode(self, weight: Tensor) -> Parts:
        blocks = self.blocks(weight)
        scales, zeros = self.scales(blocks)
        codes = self.codes(blocks, scales[..., None], zeros[..., None])
        return self.assemble(codes.flatten(1)[:, : weight.shape[1]], scales, zeros)

    def decode(self, parts: Mapping[str, Tensor], shape: Size | tuple[int, ...]) -> Tensor:
        n, m = shape
        codes = unpack(parts["codes"], self.bits, n * m).view(n, m)
        scales, zeros = self.stored_scales(parts, n)
        group = self.width(m)
        scales, zeros = (each.repeat_interleave(group, dim=1)[:, :m] for each in (scales, zeros))
        return self.values(codes, scales, zeros)

    def first(self, parts: Mapping[str, Tensor], shape: Size | tuple[int, ...], rows: int, columns: int) -> Parts:
        """The stored tensors of the first rows and columns of a stored matrix, rounded no further."""
        n, m = shape
        groups = -(-columns // self.width(m))
        codes = unpack(parts["codes"], self.bits, n * m).view(n, m)[:rows, :columns]
        scales, zeros = (each[:rows, :groups] for each in self.stored_scales(parts, n))
        return self.assemble(codes, scales, zeros)

    # --- the steps, for methods that round column by column ------------------------------------------------

    def width(self, columns: int) -> int:
        """Inputs that share a scale, of a matrix of so many columns."""
        return min(self.group or columns, columns)

    def blocks(self, weight: Tensor) -> Tensor:
        """Rows (n, m) as groups (n, g, width), float64, the last one filled up with zeros."""
        width = self.width(weight.shape[1])
        padded = torch.nn.functional.pad(weight.double(), (0, -weight.shape[1] % width))
        return padded.view(len(weight), -1, width)

    def scales(self, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """s float64, as it is stored, and z int64, of groups (…, width): (…,) each. Raises ValueError for weights that
        the type of scales cannot hold."""
        middle = 2 ** (self.bits - 1)
        if self.grid == "asymmetric":
            low, high = blocks.amin(-1).clamp(max=0), blocks.amax(-1).clamp(min=0)
            scales = self._rounded((high - low) / (2**self.bits - 1))
            zeros = (-low / _nonzero(scales)).round().clamp(0, 2**self.bits - 1)
            return scales, zeros.long()
        most = blocks.abs().amax(-1)
        if self.grid == "mx":
            exponent = torch.frexp(most).exponent.double() - 1
            scales = torch.exp2((exponent - (self.bits - 2)).clamp(-BIAS, 255 - BIAS))
        elif self.grid == "symmetric_full":
            scales = self._rounded(2 * most / (2**self.bits - 1))
        else:
            scales = self._rounded(most / (middle - 1))
        return scales, torch.full_like(scales, middle, dtype=torch.int64)

    def codes(self, values: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
        """q int64 of values, which scales and zeros are broadcast to."""
        lowest = int(self.grid in ("symmetric_restricted", "mx"))
        return ((values / _nonzero(scales)).round().long() + zeros).clamp(lowest, 2**self.bits - 1)

    def values(self, codes: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
        """What codes stand for, float64."""
        return (codes - zeros) * scales

    def assemble(self, codes: Tensor, scales: Tensor, zeros: Tensor) -> Parts:
        """The stored tensors of codes (n, m), scales and zeros (n, g)."""
        parts = {"codes": pack(codes, self.bits)}
        if self.grid == "mx":
            return parts | {"exponents": (torch.log2(scales).round() + BIAS).to(torch.uint8)}
        parts["scales"] = scales.to(getattr(torch, self.scale_type))
        return parts | ({"zeros": pack(zeros, self.bits)} if self.grid == "asymmetric" else {})

    def stored_scales(self, parts: Mapping[str, Tensor], rows: int) -> tuple[Tensor, Tensor]:
        """s and z (rows, g) of stored tensors."""
        scales = torch.exp2(parts["exponents"].double() - BIAS) if self.grid == "mx" else parts["scales"].double()
        if self.grid == "asymmetric":
            return scales, unpack(parts["zeros"], self.bits, scales.numel()).view(rows, -1)
        return scales, torch.full_like(scales, 2 ** (self.bits - 1), dtype=torch.int64)

    def _rounded(self, scales: Tensor) -> Tensor:
        found = scales.to(getattr(torch, self.scale_type)).double()
        if not found.isfinite().all():
            raise ValueError(f"a scale of {scales.max():.3g} is beyond {self.scale_type}")
        return found


def _nonzero(scales: Tensor) -> Tensor:
    """A group of zeros has the scale zero."""
    return scales.where(scales > 0, 1.0)
