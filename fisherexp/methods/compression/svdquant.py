"""SVDQuant: weights and activations in four bits; outliers move into the weights, and a low-rank branch absorbs them.

    λ_j = max|x_j|^α / max|w_:j|^β,   W' = W diag(λ),   x' = x / λ
    B A ← rank r of W' - Q,   Q ← rounded (W' - B A),   from Q = 0, until the outputs' error falls no more
    y = Q rounded(x') + B A x'

Paper: Li et al., ICLR 2025, arXiv 2411.05007. (α, β) is the pair of (0, 0), (i/k, 0), (i/k, 1 - i/k), i = 1 … k - 1,
with the least error of outputs, the branch being one SVD; the iteration comes after. Errors are those of the layer's
own outputs for `rows` calibration inputs, activations rounded. The branch sees activations that are not rounded.

Where the official code differs: query, key and value share one branch and are judged by the attention's output,
rounding of activations that are never negative is unsigned, GPTQ may follow, and an error equal to the one before does
not end the iteration.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Bits, Count, Size
from fisherexp.methods.compression.rounded import Rounded
from fisherexp.methods.compression.weight_transform import halved, refuse_convolutions
from fisherexp.quantization import (
    Iterate,
    LayerStats,
    StoredWeight,
    alternate,
    fake_quantize,
    weighted_low_rank,
)


def smoothing(inputs: Tensor, weight: Tensor, alpha: float, beta: float) -> Tensor:
    """λ (m,) of the largest |x_j| (m,) and W (n, m): 1 where it would be 0, and all 1 where any is not finite."""
    scales = inputs.double().pow(alpha) / weight.double().abs().amax(0).pow(beta)
    if not scales.isfinite().all():
        return torch.ones_like(scales)
    return torch.where(scales == 0, 1.0, scales).float().double()  # as it is stored


def exponents(steps: int) -> list[tuple[float, float]]:
    """The pairs (α, β) that are tried."""
    shares = [i / steps for i in range(1, steps)]
    return [(0.0, 0.0), *((share, 0.0) for share in shares), *((share, 1 - share) for share in shares)]


class SVDQuant(Rounded):
    """rank: r; 0 is SmoothQuant. activation_bits: of the inputs of layers, in groups like the weights. steps: k of the
    search for λ; 1 is without smoothing. iterations: of branch and rounding, at most. rows: calibration inputs of each
    layer that judge them. Linear layers only; the rest as in Rounded.
    """

    name = "svdquant"
    paper = "Li et al., ICLR 2025, arXiv 2411.05007"
    counts_with = {"iterations": {"bits": 2, "iterations": 1}}

    def __init__(
        self,
        model: nn.Module,
        rank: Size,
        activation_bits: Bits,
        steps: Count,
        iterations: Count,
        rows: Count,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        refuse_convolutions(model, *self.blocks)
        self.rank, self.steps, self.iterations = rank, steps, iterations
        self.activation_bits, self.activation_group, self.keep = activation_bits, options["group"], rows

    def compress(self, name: str, weight: Tensor, stats: LayerStats) -> StoredWeight:
        rows = stats.rows.to(weight)
        wanted = rows @ weight.T
        best, smooth = float("inf"), None
        for alpha, beta in exponents(self.steps):
            tried = smoothing(stats.largest, weight, alpha, beta)
            lost, _ = self.branch(weight * tried, rows / tried, wanted, iterations=1)
            if lost <= best:
                best, smooth = lost, tried
        _, found = self.branch(weight * smooth, rows / smooth, wanted, self.iterations)
        factors = halved(found.up, found.down) if self.rank else ()
        return StoredWeight(tuple(weight.shape), self.form, found.parts, *factors, smooth=smooth.float())

    def branch(self, weight: Tensor, rows: Tensor, wanted: Tensor, iterations: int) -> tuple[float, Iterate]:
        """The least squared error of outputs, and Q, B, A with it. weight: W' (n, m); rows: x' (N, m)."""
        rounded = fake_quantize(rows, self.activation_bits, self.activation_group)

        def low_rank(rest: Tensor) -> tuple[Tensor, Tensor]:
            up, down = halved(*weighted_low_rank(rest, self.rank))
            return up.to(rest), down.to(rest)

        def error(found: Iterate) -> float:
            made = rounded @ found.quantized.T + (rows @ found.down.T) @ found.up.T
            return (made - wanted).square().sum().item()

        found, errors = alternate(weight, self.form, low_rank, iterations, error, low_rank_first=True)
        return min(errors), found
