"""A linear layer that computes with a quantized matrix, low-rank factors beside it, and rounded activations."""

import torch.nn.functional as F
from torch import Tensor, nn

from .activations import fake_quantize
from .layers import set_matrix
from .stored import StoredWeight


class Factored(nn.Module):
    """y = Q fq(x / λ) + B A (x / λ) + b: the factors see activations that are not rounded.

    layer: the linear layer it takes the place of; parameters keep their names and objects. Its weight is set to
    (Q + B A) / λ, which is what a state dict holds, and takes no part in forward. bits, group: of the activations, see
    `fake_quantize`; None computes with x / λ as it is.
    """

    def __init__(self, layer: nn.Module, stored: StoredWeight, bits: int | None, group: int | None = None) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.bits, self.group = bits, group
        set_matrix(layer, stored.weight())
        buffers = {"quantized": stored.quantized(), "up": stored.up, "down": stored.down, "smooth": stored.smooth}
        for name, tensor in buffers.items():
            # What they are made of has a file of its own.
            self.register_buffer(name, None if tensor is None else tensor.to(self.weight.detach()), persistent=False)
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.quantized, self.up, self.down, self.smooth
        return apply_factored(x, *parts, self.bits, self.group, self.bias)


def apply_factored(
    x: Tensor,
    quantized: Tensor,
    up: Tensor | None,
    down: Tensor | None,
    smooth: Tensor | None,
    bits: int | None,
    group: int | None,
    bias: Tensor | None = None,
) -> Tensor:
    """y (…, n) of x (…, m) with Q (n, m), B (n, r), A (r, m), λ (m,) and a bias (n,), as Factored has it."""
    if smooth is not None:
        x = x / smooth
    y = F.linear(x if bits is None else fake_quantize(x, bits, group), quantized, bias)
    return y if up is None else y + F.linear(F.linear(x, down), up)
