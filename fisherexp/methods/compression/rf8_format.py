"""RF8: floats of eight bits with at most two powers of two.

    w ≈ s 2^e (1 + r),   r one of 0, 2^-1, 2^-2, 2^-3, 2^-4, -2^-3, -2^-4

The first power is the nearest to |w|, the second the nearest to what is left with its sign, left out where it is more
than four below; nearness is that of logarithms (arXiv 2506.00486, authors' code). Values in [1, 2) are 1, 1.0625,
1.125, 1.25, 1.5, 1.75, 1.875; 1.5 is reached from both sides, 1 + 2^-1 or 2 - 2^-1, and stored as the former.
rounding=truncate takes the two leading binary digits, as the paper words it: 1, 1.0625, 1.125, 1.25, 1.5.

The split of the byte is ours: sign 1, exponent 4, remainder 3 bits. Exponent 0 with remainder 0 is zero, and 1 … 15
count up to the largest exponent of the tensor, which is stored beside it; what is smaller becomes zero.
"""

from typing import Literal

import torch
from torch import Tensor

Rounding = Literal["nearest", "truncate"]

REMAINDERS = torch.tensor([0, 1 / 2, 1 / 4, 1 / 8, 1 / 16, -1 / 8, -1 / 16], dtype=torch.float64)
LEVELS = 15  # exponents of a tensor


def parts(values: Tensor, rounding: Rounding = "nearest") -> tuple[Tensor, Tensor]:
    """(e, index of r) of numbers that are not zero, without a limit to e."""
    magnitude = values.double().abs()
    exponent = _power(magnitude, rounding)
    rest = magnitude.ldexp(-exponent) - 1  # exact
    gap = -_power(rest.abs().clamp_min(2.0**-40), rounding)
    short = gap == 2  # of the next power, by a quarter: one and a half times this one
    exponent = exponent - (short & (rest < 0)).int()
    # Below by 2^-3 and 2^-4 are remainders 5 and 6. By 2^-1 does not occur, as the first power is the nearest.
    remainder = torch.where(rest > 0, gap, torch.where(short, 1, gap + 2))
    return exponent, torch.where(gap > 4, 0, remainder)


def encode(values: Tensor, rounding: Rounding = "nearest") -> tuple[Tensor, int]:
    """(bytes in the shape of the values, largest exponent). Raises ValueError for numbers that are not finite."""
    if not values.isfinite().all():
        raise ValueError("RF8 has no infinity and no NaN")
    there = values != 0
    if not there.any():
        return torch.zeros_like(values, dtype=torch.uint8), 0
    exponent, remainder = parts(values.where(there, 1.0), rounding)
    largest = int(exponent[there].max())
    level = exponent - largest + LEVELS
    there = there & (level >= 1)
    code = (values < 0) * 128 + level * 8 + remainder
    return torch.where(there, code, 0).to(torch.uint8), largest


def decode(codes: Tensor, largest: int) -> Tensor:
    """The numbers, float32."""
    level, remainder = codes.int() >> 3 & 15, codes.int() & 7
    magnitude = _value(level + largest - LEVELS, remainder)
    return torch.where(level > 0, magnitude.where(codes < 128, -magnitude), 0.0).float()


def _value(exponent: Tensor, remainder: Tensor) -> Tensor:
    return (1 + REMAINDERS.to(remainder.device)[remainder.long()]).ldexp(exponent)


def _power(magnitude: Tensor, rounding: Rounding) -> Tensor:
    """Exponent of the power of two that is nearest in its logarithm, or that is not larger."""
    mantissa, exponent = magnitude.frexp()  # mantissa in [1/2, 1)
    below = exponent.int() - 1
    return below + (mantissa >= 0.5**0.5).int() if rounding == "nearest" else below
