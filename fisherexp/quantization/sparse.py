"""Matrices with zeros, and matrices as they are: which weights a pattern keeps, and how the kept ones are stored."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Size, Tensor

from .format import Format, Parts
from .packing import pack, unpack


def two_of_four(scores: Tensor) -> Tensor:
    """True for the two highest of any four consecutive columns of scores (n, m), of equal ones the first.

    Of a last group of fewer than four columns two are kept, too.
    """
    groups = _fours(scores, -1.0)
    order = groups.argsort(dim=-1, descending=True, stable=True)[..., :2]
    kept = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order, True)
    return kept.flatten(1)[:, : scores.shape[1]]


@dataclass(frozen=True)
class Plain(Format):
    """Every weight as a float, `dtype` being a torch dtype's name."""

    dtype: str = "float16"

    def encode(self, weight: Tensor) -> Parts:
        return {"values": weight.to(getattr(torch, self.dtype))}

    def decode(self, parts: Mapping[str, Tensor], shape: Size | tuple[int, ...]) -> Tensor:
        return parts["values"].double().view(tuple(shape))

    def first(self, parts: Mapping[str, Tensor], shape: Size | tuple[int, ...], rows: int, columns: int) -> Parts:
        """The stored tensors of the first rows and columns of a stored matrix."""
        return {"values": parts["values"].view(tuple(shape))[:rows, :columns]}


@dataclass(frozen=True)
class TwoFour(Format):
    """Two weights of any four consecutive inputs, and of each in two bits which of the four it is.

    values: how the kept ones, as a matrix (n, m / 2), are stored. Of four that are all set, the two largest stay.
    """

    values: Format = Plain()

    def encode(self, weight: Tensor) -> Parts:
        kept = two_of_four(_fours(weight, 0.0).flatten(1).abs()).view(len(weight), -1, 4)
        places = kept.int().argsort(dim=-1, descending=True, stable=True)[..., :2]
        values = _fours(weight, 0.0).gather(-1, places).flatten(1)
        return {"places": pack(places, 2), **self.values.encode(values)}

    def decode(self, parts: Mapping[str, Tensor], shape: Size | tuple[int, ...]) -> Tensor:
        n, m = shape
        groups = -(-m // 4)
        places = unpack(parts["places"], 2, n * groups * 2).view(n, groups, 2)
        values = self.values.decode(parts, (n, 2 * groups)).view(n, groups, 2)
        return values.new_zeros(n, groups, 4).scatter_(-1, places, values).flatten(1)[:, :m]


@dataclass(frozen=True)
class Masked(Format):
    """The weights that are not zero, as floats, and a bit for each weight that says which they are."""

    dtype: str = "float16"

    def encode(self, weight: Tensor) -> Parts:
        kept = weight != 0
        return {"kept": pack(kept.int(), 1), "values": weight[kept].to(getattr(torch, self.dtype))}

    def decode(self, parts: Mapping[str, Tensor], shape: Size | tuple[int, ...]) -> Tensor:
        n, m = shape
        kept = unpack(parts["kept"], 1, n * m).bool()
        values = parts["values"].double()
        return values.new_zeros(n * m).masked_scatter_(kept, values).view(n, m)


def _fours(matrix: Tensor, filling: float) -> Tensor:
    """(n, m) as (n, ⌈m / 4⌉, 4)."""
    padded = torch.nn.functional.pad(matrix, (0, -matrix.shape[1] % 4), value=filling)
    return padded.view(len(matrix), -1, 4)
