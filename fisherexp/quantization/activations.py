"""Rounded activations with the gradient of unrounded ones."""

import torch
from torch import Tensor


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with the gradient that x has (Bengio et al. 2013, arXiv 1308.3432)."""
    return x + (rounded - x).detach()


def fake_quantize(x: Tensor, bits: int, group: int | None = None) -> Tensor:
    """Activations (…, m) as they would be after symmetric rounding to b bits, each token with scales of its own.

    s = max|x| / (2^(b-1) - 1) over `group` consecutive features, the last group being shorter where it does not
    divide m; None for all of them. Same shape and type; the gradient goes straight through.
    """
    m = x.shape[-1]
    width = min(group or m, m)
    blocks = torch.nn.functional.pad(x.detach(), (0, -m % width)).unflatten(-1, (-1, width))
    most = 2 ** (bits - 1) - 1
    scales = blocks.abs().amax(-1, keepdim=True) / most
    rounded = (blocks / scales.where(scales > 0, 1.0)).round().clamp(-most, most) * scales
    return straight_through(x, rounded.flatten(-2)[..., :m])
