"""GPTQ: round column by column, later columns making up for what the rounding of earlier ones loses.

    q_j = rounded w_j,   W_:k ← W_:k - (w_j - q_j) U_jk / U_jj,   k > j      (column_by_column.py)

Paper: Frantar, Ashkboos, Hoefler, Alistarh, ICLR 2023, arXiv 2210.17323. Scales of a row are those of the untouched
weights; scales of a group are taken when its first column is reached, from the weights as they are by then (the
official code takes those of the last 128 columns' end). act_order goes by falling mean squares of the inputs, with the
scales of the untouched weights (its static groups).
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Positive
from fisherexp.methods.compression.column_by_column import column_by_column, inverse_factor
from fisherexp.methods.compression.rounded import Rounded
from fisherexp.quantization import Format, Integer, LayerStats, StoredWeight


def gptq(
    weight: Tensor, moment: Tensor, form: Integer, damping: float = 0.01, act_order: bool = False
) -> dict[str, Tensor]:
    """The stored tensors of W (n, m) in a format. moment: E[x xᵀ] (m, m) or its diagonal (m,)."""
    n, m = weight.shape
    blocks, width = form.blocks(weight), form.width(m)
    scales, zeros = form.scales(blocks)
    codes = torch.empty(n, m, dtype=torch.int64, device=weight.device)
    diagonal = moment.diagonal() if moment.dim() == 2 else moment
    order = diagonal.argsort(descending=True, stable=True) if act_order else torch.arange(m, device=weight.device)
    grouped = width < m and not act_order

    def choose(j: int, rest: Tensor) -> Tensor:
        column = int(order[j])
        group = column // width
        if grouped and column % width == 0:
            scales[:, group], zeros[:, group] = form.scales(rest[:, :width])
        of_group = scales[:, group], zeros[:, group]
        codes[:, column] = form.codes(rest[:, 0], *of_group)
        return form.values(codes[:, column], *of_group)

    ordered = moment[order][:, order] if moment.dim() == 2 else moment[order]
    factor = inverse_factor(ordered, damping)
    column_by_column(weight[:, order], factor, choose, width if grouped else 1)
    return form.assemble(codes, scales, zeros)


def integer(form: Format) -> Integer:
    """The format as GPTQ takes it. Raises ValueError for another."""
    if not isinstance(form, Integer):
        raise ValueError("method.grid=normal_float: GPTQ takes scales column by column; nearest: symmetric_full")
    return form


class GPTQ(Rounded):
    """damping: share of the mean diagonal. act_order: columns by falling mean squares. sequential: see WeightTransform.
    The rest as in Rounded, without normal_float."""

    name = "gptq"
    paper = "Frantar et al., ICLR 2023, arXiv 2210.17323"

    def __init__(self, model: nn.Module, damping: Positive, act_order: bool, sequential: bool, **options: Any) -> None:
        super().__init__(model, sequential=sequential, **options)
        integer(self.form)
        self.damping, self.act_order = damping, act_order

    def compress(self, name: str, weight: Tensor, stats: LayerStats) -> StoredWeight:
        parts = gptq(weight, stats.second_moment, self.form, self.damping, self.act_order)
        return StoredWeight(tuple(weight.shape), self.form, parts)
