"""Weight transforms that set weights to zero: two of any four inputs, or a share of all."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Share
from fisherexp.methods.compression.weight_transform import WeightTransform
from fisherexp.quantization import Format, LayerStats, Masked, StoredWeight, TwoFour, two_of_four


def row_mask(scores: Tensor, sparsity: float) -> Tensor:
    """False for the ⌊sparsity · m⌋ lowest scores (n, m) of each row, of equal ones the first."""
    dropped = scores.argsort(dim=1, stable=True)[:, : int(sparsity * scores.shape[1])]
    return torch.ones_like(scores, dtype=torch.bool).scatter_(1, dropped, False)


class Sparse(WeightTransform):
    """pattern: two_four, two weights kept of any four consecutive inputs, or unstructured. sparsity: share that becomes
    zero, of an unstructured pattern. A method says which weights are left (`pruned`). The rest as in WeightTransform.

    Kept weights are stored in 16 bits, with two bits each for their place or, unstructured, one bit for every weight.
    """

    counts_with = {"sparsity": {"pattern": "unstructured"}}

    def __init__(
        self, model: nn.Module, pattern: Literal["two_four", "unstructured"], sparsity: Share, **options: Any
    ) -> None:
        super().__init__(model, **options)
        self.pattern, self.sparsity = pattern, sparsity
        self.form: Format = TwoFour() if pattern == "two_four" else Masked()

    @property
    def weight_bits(self) -> int:
        return 16

    def pruned(self, weight: Tensor, stats: LayerStats) -> Tensor:
        """W (n, m) with zeros."""
        raise NotImplementedError

    def mask(self, scores: Tensor) -> Tensor:
        """True for what is kept, compared within a row."""
        return two_of_four(scores) if self.pattern == "two_four" else row_mask(scores, self.sparsity)

    def compress(self, name: str, weight: Tensor, stats: LayerStats) -> StoredWeight:
        return StoredWeight(tuple(weight.shape), self.form, self.form.encode(self.pruned(weight, stats)))
