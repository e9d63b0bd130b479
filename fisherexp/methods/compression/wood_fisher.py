"""WoodFisher pruning: Optimal Brain Surgeon with a block-diagonal Fisher, each block inverted as a dense matrix.

Paper: Singh, Alistarh, NeurIPS 2020, arXiv 2004.14340. For block b of the weights that are left, in float64,

    F_b = λ I + G_b^T G_b / m,   ρ_p = w_p² / (2 [F_b^-1]_pp),   w_b ← w_b + F_b^-1 q_b

The paper builds F_b^-1 by m rank-one updates; factorizing the B × B block is the same matrix. WoodTaylor
(first_order=true) drops the assumption that the gradient g is zero: with u = F^-1 g,

    ρ_p = (w_p - u_p)² / (2 [F^-1]_pp),   w ← w - u + F^-1 q,   q_p = -(w_p - u_p) / [F^-1]_pp

where g is the mean of the m stored gradients, which leaves u a combination of them.

Where the official code differs: before it ranks all layers together, WoodTaylor takes off each layer's smallest
saliency, as WoodFisher does on request, so that every layer has a weight that costs nothing (layer_minimum=subtract);
our results were made without. Its blocks lie within layers; here they are cut from the weights that are left, in the
order of the layers, and may straddle two.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count
from fisherexp.methods.compression.obs import ObsPruning, individual_update, saliency
from fisherexp.methods.compression.pruning import lowest


class DenseBlocks:
    """F^-1 of a block-diagonal F from gradients (m, n), as (B, B) matrices of `size` consecutive coordinates."""

    def __init__(self, gradients: Tensor, damping: float, size: int) -> None:
        m, n = gradients.shape
        padded = nn.functional.pad(gradients.double(), (0, -n % size))  # padding has F = λ I and is cut off again
        columns = padded.unflatten(1, (-1, size)).transpose(0, 1)  # (blocks, m, B)
        blocks = columns.transpose(1, 2) @ columns / m
        blocks.diagonal(dim1=1, dim2=2).add_(damping)
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(blocks))
        self.n, self.dtype = n, gradients.dtype

    def inverse_diagonal(self) -> Tensor:
        """(n,)"""
        return self.inverse.diagonal(dim1=1, dim2=2).flatten()[: self.n].to(self.dtype)

    def solve(self, x: Tensor) -> Tensor:
        """F^-1 x for x (n,)."""
        blocks = nn.functional.pad(x.to(self.inverse), (0, self.inverse.shape[0] * self.inverse.shape[1] - self.n))
        return (self.inverse @ blocks.view(len(self.inverse), -1, 1)).flatten()[: self.n].to(x)


def above_least(scores: Tensor, layers: Tensor) -> Tensor:
    """Scores (n,) minus the least of their layer, for the number of each one's layer (n,)."""
    least = scores.new_full((int(layers.max()) + 1,), float("inf")).scatter_reduce(0, layers, scores, "amin")
    return scores - least[layers]


class WoodFisher(ObsPruning):
    """block: weights per block. first_order: WoodTaylor. layer_minimum: of saliency. The rest as in ObsPruning."""

    paper = "Singh, Alistarh, NeurIPS 2020, arXiv 2004.14340"
    start = "source"

    def __init__(
        self,
        model: nn.Module,
        block: Count,
        first_order: bool,
        layer_minimum: Literal["keep", "subtract"] = "keep",
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.block, self.first_order, self.layer_minimum = block, first_order, layer_minimum

    def surgery(self, weights: Tensor, gradients: Tensor, count: int) -> tuple[Tensor, Tensor]:
        fisher = DenseBlocks(gradients, self.damping, self.block)
        if self.first_order:
            # The Newton step; then dropping w_p - u_p is dropping w_p from where the step leads.
            weights = weights - fisher.solve(gradients.mean(dim=0))
        inverse = fisher.inverse_diagonal()
        scores = saliency(weights, inverse)
        if self.layer_minimum == "subtract":
            sizes = torch.tensor([weight.numel() for weight in self.weights.values()], device=self.kept.device)
            scores = above_least(scores, torch.arange(len(sizes)).to(sizes).repeat_interleave(sizes)[self.kept])
        dropped = lowest(scores, count)
        return individual_update(weights, dropped, fisher, inverse), dropped
