"""EVA: LoRA whose A begins with the directions in which a layer's inputs vary most, and as many as explain most.

Paischer et al., NeurIPS 2025, arXiv 2410.07170:   W' = W + α / r · B A,   B = 0, A = V_r with orthonormal rows

A layer with r' rows of A has the scale of one with r, α / r, as peft has it; in the authors' code it is α / r'.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fisherexp.adapters.lora import LoRA


def redistributed(ratios: Mapping[str, Tensor], rank: int) -> dict[str, int]:
    """Layer -> its rank, the N r largest of all layers' explained-variance ratios being counted; N layers.

    ratios: a layer's, falling (k,). A layer none of whose ratios is among the largest has rank 0. Of equal ratios those
    of earlier layers come first.
    """
    owners = [name for name, values in ratios.items() for _ in values]
    order = torch.cat([*ratios.values()]).argsort(descending=True, stable=True)[: rank * len(ratios)]
    ranks = dict.fromkeys(ratios, 0)
    for place in order.tolist():
        ranks[owners[place]] += 1
    return ranks


class EVA(LoRA):
    """weight: W (m, n). directions: the rows that A begins with, (r', n). rank: r, of the scale alone. alpha: α.

    Trains r' (m + n) numbers. Raises ValueError for directions that do not fit the weight.
    """

    def __init__(self, weight: Tensor, directions: Tensor, rank: int, alpha: float | None = None) -> None:
        count = len(directions)
        if not count or directions.shape[1:] != weight.shape[1:]:
            raise ValueError(f"directions {tuple(directions.shape)} do not fit a weight {tuple(weight.shape)}")
        super().__init__(weight, count, None if alpha is None else alpha * count / rank, init="zeros")
        with torch.no_grad():
            self.down.copy_(directions)
