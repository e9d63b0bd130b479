"""Rounding as the library torchao does it: symmetric groups, scales by the largest weight or by least squares.

    s = max|w| / half the range;   hqq_scale_only: q = round(w / s) and s = Σ w q / Σ q² in turn, 20 times at most

affine is `rtn` on a symmetric grid by another hand. What torchao calls HQQ moves scales by least squares; HQQ as
published (half-quadratic quantization, Badri, Shaji 2023) moves zero points, under a norm that minds few large errors
less. Scales are of 16 bits; codes and scales are stored as torchao finds them.

Library: https://github.com/pytorch/ao.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Bits, Count
from fisherexp.methods.compression.weight_transform import WeightTransform
from fisherexp.quantization import Integer, LayerStats, StoredWeight, matrix


class TorchaoRounding(WeightTransform):
    """bits: of a weight. group: inputs that share a scale, of which each layer has a multiple. algorithm: as above. The
    rest as in WeightTransform.

    Raises ValueError for layers of other widths, ModuleNotFoundError without torchao.
    """

    name = "torchao"
    paper = "the library torchao"
    package = "torchao"

    def __init__(
        self,
        model: nn.Module,
        bits: Bits,
        group: Count,
        algorithm: Literal["affine", "hqq_scale_only"],
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        for name in (name for block in self.blocks for name in block):
            if (inputs := matrix(model.get_submodule(name)).shape[1]) % group:
                raise ValueError(
                    f"method.group={group}: {name} has {inputs} inputs, torchao takes multiples of a group"
                )
        self.bits, self.group, self.algorithm = bits, group, algorithm
        self.form = Integer(bits, group, "symmetric_full")

    @property
    def weight_bits(self) -> int:
        return self.bits

    def compress(self, name: str, weight: Tensor, stats: LayerStats) -> StoredWeight:
        codes, scales = rounded(weight.float(), self.bits, self.group, self.algorithm)
        parts = self.form.assemble(codes.long() + 2 ** (self.bits - 1), scales, torch.zeros_like(scales))
        return StoredWeight(tuple(weight.shape), self.form, parts)


def rounded(weight: Tensor, bits: int, group: int, algorithm: str) -> tuple[Tensor, Tensor]:
    """Codes int8 (n, m), -2^(b-1) … 2^(b-1) - 1, and scales float16 (n, m / group) of torchao for W (n, m)."""
    from torchao.quantization import IntxWeightOnlyConfig, PerGroup, quantize_

    layer = nn.Linear(*reversed(weight.shape), bias=False, device=weight.device)
    layer.weight.data = weight
    holder = nn.Sequential(layer)
    config = IntxWeightOnlyConfig(
        getattr(torch, f"int{bits}"),
        PerGroup(group),
        scale_dtype=torch.float16,
        intx_choose_qparams_algorithm=algorithm,
    )
    quantize_(holder, config)
    return holder[0].weight.qdata, holder[0].weight.scale
