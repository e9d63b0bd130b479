"""LQ-LoRA: a quantized matrix plus low-rank adapters that take up what quantization loses; then the adapters train.

Paper: Guo, Greengard, Xing, Kim, ICLR 2024, arXiv 2311.12023. For each W, with F its diagonal Fisher (or ones):

    L, R ← factors of rank r of W - Q, rows and columns weighted by the rank-one fit of F;   Q ← quantized(W - L R)
    from Q = 0 until ‖√F ∘ (W - Q - L R)‖_F falls no more;   formats by the integer programme of bit_budget.py on it

Where the official code differs: it stops where the error rises, not where it stays, and returns the last iterate, which
is worse than the one before; we return the best. It stores scales relative to the smallest of the matrix and counts one
float per group (offset=matrix, see NormalFloat); our results were made with the smallest of each group. It sums F over
samples, we take means, for which the formats are the same. It scales adapters by alpha / r, here they are not scaled.
Its SVD is randomized (svd=randomized).

init=zero is QLoRA (arXiv 2305.14314): W quantized as it is, L = 0, R random.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fisherexp.config.types import AtLeastOne, Count, Positive
from fisherexp.methods.compression.bit_budget import assign
from fisherexp.methods.compression.factorization import Parts
from fisherexp.methods.compression.fisher_calibration import FisherCalibration
from fisherexp.methods.compression.low_rank import LowRank
from fisherexp.methods.compression.weighted_svd import fisher_scales, weighted_svd
from fisherexp.methods.importance import Importance
from fisherexp.methods.recipe import Recipe
from fisherexp.quantization import Format, Iterate, NormalFloat, alternate


def low_rank_plus_quantized(
    weight: Tensor,
    rank: int,
    form: Format,
    fisher: Tensor,
    iterations: int,
    svd: Literal["exact", "randomized"] = "exact",
) -> tuple[Tensor, Tensor, Tensor, list[float]]:
    """Q (n, m), L (n, r), R (r, m) for W (n, m) and its Fisher (n, m), and the weighted errors of all iterates.

    The errors are ‖√F ∘ (W - Q - L R)‖_F. Returned is the iterate with the smallest, the last but one where it rose.
    """
    scales, roots = fisher_scales(fisher, "two_sided"), fisher.sqrt()

    def error(found: Iterate) -> float:
        return (roots * (weight - found.quantized - found.up @ found.down)).norm().item()

    def low_rank(rest: Tensor) -> tuple[Tensor, Tensor]:
        return weighted_svd(rest, *scales, rank, svd)

    best, errors = alternate(weight, form, low_rank, iterations, error, True)
    return best.quantized, best.up, best.down, errors


class LQLoRA(LowRank):
    """rank: of the adapters. init: 'lq' as above, or 'zero' (QLoRA). weighted: by the Fisher, or not.

    budget: mean bits per weight of all Q, None for the most accurate format of each. The formats are all
    combinations of weight_bits, scale_bits, scale_type, block and group, with one offset, see NormalFloat.
    iterations: at most, per matrix and format. svd: of each, see `weighted_low_rank`.
    importance: the estimator of F. finetune: of the adapters, everything else is frozen.
    """

    name = "lq_lora"
    paper = "Guo et al., ICLR 2024, arXiv 2311.12023"
    start = "source"
    without_effect = {"svd": "nearly the same factors, sooner where layers are wide"}
    # Where a budget is given, the formats it rules out are not missed.
    counts_with = {option: {"budget": None} for option in ("weight_bits", "scale_bits", "scale_type", "group")}

    def __init__(
        self,
        model: nn.Module,
        rank: Count,
        init: Literal["lq", "zero"],
        weighted: bool,
        budget: Positive | None,
        weight_bits: AtLeastOne[Literal[2, 3, 4, 8]],
        scale_bits: AtLeastOne[Literal[2, 3, 4, 8]],
        scale_type: AtLeastOne[Literal["bfloat16", "float16", "float32"]],
        block: AtLeastOne[Count],
        group: AtLeastOne[Count],
        offset: Literal["group", "matrix"],
        iterations: Count,
        svd: Literal["exact", "randomized"],
        importance: Importance,
        finetune: Recipe,
    ) -> None:
        calibration = FisherCalibration(model, importance) if weighted else None
        super().__init__(model, rank, 1.0, finetune, calibration, adapters_only=True)
        self.init, self.budget, self.iterations, self.svd = init, budget, iterations, svd
        self.formats = [
            NormalFloat(*each, offset) for each in product(weight_bits, scale_bits, scale_type, block, group)
        ]

    def decompose(
        self, weights: Mapping[str, Tensor], ranks: Mapping[str, int], found: Mapping[str, Tensor] | None
    ) -> tuple[dict[str, Parts], dict[str, Any]]:
        fisher = found or {name: torch.ones_like(weight) for name, weight in weights.items()}
        given = {name: (weight, ranks[name], fisher[name]) for name, weight in weights.items()}
        errors = [[self.parts(form, *each)[1] for form in self.formats] for each in given.values()]
        counts = np.array([weight.numel() for weight in weights.values()])
        sizes = np.array([form.size for form in self.formats])
        chosen = assign(np.square(errors), counts, sizes, self.budget)
        formats = {name: self.formats[number] for name, number in zip(weights, chosen, strict=True)}
        parts = {name: self.parts(formats[name], *each)[0] for name, each in given.items()}
        bits = float(np.dot(counts, sizes[chosen]))
        adapters = 32 * sum(left.numel() + right.numel() for _, left, right in parts.values())
        return parts, {
            "format_by_layer": {name: repr(form) for name, form in formats.items()},
            "bits_per_weight": bits / counts.sum(),
            "bits_per_weight_with_adapters": (bits + adapters) / counts.sum(),
            "weighted_squared_error": sum(errors[i][c] ** 2 for i, c in enumerate(chosen)),
        }

    def parts(self, form: NormalFloat, weight: Tensor, rank: int, fisher: Tensor) -> tuple[Parts, float]:
        """(Q, L, R) of a weight (n, m) in a format, and its weighted error."""
        if self.init == "lq":
            *found, errors = low_rank_plus_quantized(weight, rank, form, fisher, self.iterations, self.svd)
            return tuple(found), min(errors)
        quantized = form(weight)
        left, right = weight.new_zeros(len(weight), rank), weight.new_empty(rank, weight.shape[1])
        nn.init.kaiming_uniform_(right, a=5**0.5, generator=torch.Generator(right.device).manual_seed(rank))
        return (quantized, left, right), (fisher.sqrt() * (weight - quantized)).norm().item()
