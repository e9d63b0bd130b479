"""Weight transforms that round to a grid, alone or with low-rank factors for what rounding loses."""

from typing import Any, Literal

from torch import Tensor, nn

from fisherexp.config.types import Bits, Count, Size
from fisherexp.methods.compression.weight_transform import WeightTransform, halved
from fisherexp.quantization import Format, Integer, LayerStats, NormalFloat, Root, StoredWeight, weighted_low_rank


def format_of(bits: int, group: int | None, grid: str) -> Format:
    """normal_float: quantiles (LoftQ's, without a second level), blocks of `group` weights in row-major order; the rest
    as in Integer. Scales are of 16 bits."""
    if grid == "normal_float":
        return NormalFloat(bits, None, "float16", group)
    return Integer(bits, group, grid)


class Rounded(WeightTransform):
    """bits: of a weight. group: inputs that share a scale; None for all of a row. grid: see format_of. The rest as in
    WeightTransform."""

    def __init__(
        self,
        model: nn.Module,
        bits: Bits,
        group: Count | None,
        grid: Literal["symmetric_full", "symmetric_restricted", "asymmetric", "mx", "normal_float"],
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        if grid == "normal_float" and group is None:
            raise ValueError("method.group=null: method.grid=normal_float needs a number of weights that share a scale")
        self.bits, self.form = bits, format_of(bits, group, grid)

    @property
    def weight_bits(self) -> int:
        return self.bits


class Corrected(Rounded):
    """Q = rounded W, then B A of rank r for W - Q, once: a method says how inputs and outputs weigh (`roots`).

    rank: r, of every layer, or fewer where a weight has fewer rows or columns; 0 for none. Factors are of 16 bits.
    svd: see `weighted_low_rank`.
    """

    without_effect = {"svd": "nearly the same factors, sooner where layers are wide"}

    def __init__(
        self, model: nn.Module, rank: Size, svd: Literal["exact", "randomized"] = "exact", **options: Any
    ) -> None:
        super().__init__(model, **options)
        self.rank, self.svd = rank, svd

    def roots(self, name: str, stats: LayerStats) -> tuple[Root | None, Root | None]:
        """S of a layer's inputs and L of its outputs, see fisherexp/quantization/low_rank.py."""
        raise NotImplementedError

    def compress(self, name: str, weight: Tensor, stats: LayerStats) -> StoredWeight:
        return self.corrected(name, weight, stats, self.form, self.form.encode(weight))

    def corrected(
        self, name: str, weight: Tensor, stats: LayerStats, form: Format, parts: dict[str, Tensor]
    ) -> StoredWeight:
        """A weight that is stored as `parts` of a format, with its factors."""
        if not self.rank:
            return StoredWeight(tuple(weight.shape), form, parts)
        lost = weight - form.decode(parts, weight.shape)
        factors = halved(*weighted_low_rank(lost, self.rank, *self.roots(name, stats), self.svd))
        return StoredWeight(tuple(weight.shape), form, parts, *factors)
