"""Some rows and columns of a matrix, in an order of their own; the others are zero."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Size, Tensor

from .format import Format, Parts

LARGEST = torch.iinfo(torch.int16).max


@dataclass(frozen=True)
class Kept(Format):
    """values: how the matrix of what is kept is stored. Which rows and columns these are takes two bytes each."""

    values: Format

    def encode(self, weight: Tensor) -> Parts:
        rows, columns = ((weight != 0).any(axis).nonzero().flatten() for axis in (1, 0))
        return self.assemble(self.values.encode(weight[rows][:, columns]), rows, columns)

    def decode(self, parts: Mapping[str, Tensor], shape: Size | tuple[int, ...]) -> Tensor:
        rows, columns = parts["rows"].long(), parts["columns"].long()
        found = self.values.decode(parts, (len(rows), len(columns)))
        whole = found.new_zeros(tuple(shape))
        whole[rows[:, None], columns] = found
        return whole

    def assemble(self, parts: Parts, rows: Tensor, columns: Tensor) -> Parts:
        """The stored tensors, given those of the kept matrix and where in the whole its rows and columns are. Raises
        ValueError for places beyond two bytes."""
        if (last := max(int(each.max()) for each in (rows, columns))) > LARGEST:
            raise ValueError(f"row or column {last}: two bytes hold places up to {LARGEST}")
        return {"rows": rows.to(torch.int16), "columns": columns.to(torch.int16), **parts}
