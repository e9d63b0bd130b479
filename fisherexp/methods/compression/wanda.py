"""Wanda: drop the weights whose product with the size of their input is smallest; the others stay as they are.

    saliency |w_ij| √E[x_j²],   compared within the weights of one output

Paper: Sun, Liu, Bair, Kolter, ICLR 2024, arXiv 2306.11695. Its variant that finds a threshold for each row is not here.
"""

from typing import Any

from torch import Tensor, nn

from fisherexp.methods.compression.sparsity import Sparse
from fisherexp.quantization import LayerStats


def wanda_scores(weight: Tensor, mean_square: Tensor) -> Tensor:
    """Saliencies of W (n, m), E[x²] being (m,)."""
    return weight.abs() * mean_square.sqrt()


class Wanda(Sparse):
    """sequential: see WeightTransform. The rest as in Sparse."""

    paper = "Sun et al., ICLR 2024, arXiv 2306.11695"

    def __init__(self, model: nn.Module, sequential: bool, **options: Any) -> None:
        super().__init__(model, sequential=sequential, **options)

    def pruned(self, weight: Tensor, stats: LayerStats) -> Tensor:
        return weight * self.mask(wanda_scores(weight, stats.mean_square))
