"""Per-sample weight gradients of depthwise convolutions, where every channel has a kernel of its own.

With the padded input x and the gradient g of the result, sample n and channel c, at an offset k of the kernel:

    G_nc[k] = Σ_l g_nc[l] x_nc[stride · l + dilation · k]

No two samples or channels meet in it, so samples may stand beside channels as further groups of one library call.
"""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

LIBRARY_KERNEL = 3  # up to this size the library has a fast weight gradient; beyond it takes groups one after the other


def depthwise_gradients(
    x: Tensor, g: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """G (N, C, *kernel) of x (N, C, *padded space) and g (N, C, *positions), in their dtype."""
    if g.device.type != "cpu" or g.dtype != torch.float32 or g.dim() > 4 or not torch.backends.mkldnn.is_available():
        return by_offsets(x, g, kernel, stride, dilation)
    if g.dim() == 3:  # one axis of space is the second of two
        x, g = x.unsqueeze(2), g.unsqueeze(2)
        return depthwise_gradients(x, g, (1, *kernel), (1, *stride), (1, *dilation)).squeeze(2)
    small = max(kernel) <= LIBRARY_KERNEL and max(dilation) == 1
    return (by_weight_gradient if small else by_convolution)(x, g, kernel, stride, dilation)


def by_offsets(x: Tensor, g: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """The sum above for one offset after the other: any number of axes, dtype and device."""
    lengths = [(size - 1) * s + 1 for size, s in zip(g.shape[2:], stride, strict=True)]
    space, sums = tuple(range(2, g.dim())), []
    for offset in product(*map(range, kernel)):
        starts = [k * d for k, d in zip(offset, dilation, strict=True)]
        window = [slice(a, a + length, s) for a, length, s in zip(starts, lengths, stride, strict=True)]
        sums.append((x[..., *window] * g).sum(space))
    return torch.stack(sums, -1).unflatten(-1, tuple(kernel))


def by_weight_gradient(
    x: Tensor, g: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """The library's weight gradient of one image with N C channels."""
    n, c = g.shape[:2]
    weight = x.new_empty(n * c, 1, *kernel)  # only its shape matters
    options = (None, stride, [0, 0], dilation, False, [0, 0], n * c, [False, True, False])
    gradient = torch.ops.aten.convolution_backward(beside_channels(g), beside_channels(x), weight, *options)[1]
    return gradient.view(n, c, *kernel)


def by_convolution(
    x: Tensor, g: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """The library's forward pass: g is the kernel, stride and dilation change places."""
    n, c = g.shape[:2]
    out = F.conv2d(beside_channels(x), g.reshape(n * c, 1, *g.shape[2:]), None, dilation, 0, stride, n * c)
    return out[..., : kernel[0], : kernel[1]].reshape(n, c, *kernel)


def beside_channels(images: Tensor) -> Tensor:
    """(N, C, H, W) as one image (1, N C, H, W) in channels-last, which libraries compute fastest."""
    n, c, h, w = images.shape
    return images.permute(2, 3, 0, 1).reshape(1, h, w, n * c).permute(0, 3, 1, 2)
