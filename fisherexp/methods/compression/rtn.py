"""Round to nearest: every weight to the grid by itself, the baseline of all quantization (`w_only`).

    Ŵ = s (q - z),   grids and scales in fisherexp/quantization/integer.py

activation_bits rounds the inputs of layers too, each token anew, symmetric (`w4a4`).
"""

from typing import Any

from torch import Tensor, nn

from fisherexp.config.types import Bits
from fisherexp.methods.compression.rounded import Rounded
from fisherexp.methods.compression.weight_transform import refuse_convolutions
from fisherexp.quantization import LayerStats, StoredWeight

ROWS = 512  # inputs of a layer that an error with rounded activations is taken over


class RTN(Rounded):
    """activation_bits: of the inputs of layers, in groups like the weights; None leaves them as they are. The rest as
    in Rounded."""

    paper = "Dettmers et al., NeurIPS 2022, arXiv 2208.07339"

    def __init__(self, model: nn.Module, activation_bits: Bits | None, **options: Any) -> None:
        super().__init__(model, **options)
        if activation_bits is not None:
            refuse_convolutions(model, *self.blocks)
            self.keep = ROWS
        self.activation_bits, self.activation_group = activation_bits, options["group"]

    def compress(self, name: str, weight: Tensor, stats: LayerStats) -> StoredWeight:
        return StoredWeight(tuple(weight.shape), self.form, self.form.encode(weight))
