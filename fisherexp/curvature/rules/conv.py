"""Convolution: y = W * x + b. With x unfolded into patches u_l, y_l = W u_l + b at each output position l.

Per-sample gradients: G_n = Σ_l g_nl u_nlᵀ for W, in each group of channels, Σ_l g_nl for b.
Unfolding: Chellapilla et al. 2006; per-sample gradients of convolutions: Rochette et al. 2019.
Where one sample is much work, the library's weight gradient, called for one at a time, is faster than unfolding.
"""

from functools import partial
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Call, Use, chunks
from .depthwise import depthwise_gradients
from .outer import add_squared_outers, better_turned

PATCH_BYTES = 2 * 2**20  # per thread; patches repeat every input nine times for a 3x3 kernel: a few samples at a time
# From here on the weight gradient of one sample is worth a call: so many positions and multiply-adds.
MANY_POSITIONS, MANY_PRODUCTS = 256, 2**25
GROUPED_POSITIONS = 128  # with groups of channels, already from here on


def _pair(value: int | tuple, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)


class Conv(Use):
    """`F.conv1d`, `F.conv2d` and `F.conv3d`, with strides, padding, dilation and groups."""

    spatial = 2
    recurring = True

    def __init__(
        self,
        call: Call,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | tuple = 1,
        padding: int | tuple | str = 0,
        dilation: int | tuple = 1,
        groups: int = 1,
    ):
        super().__init__(call, weight=weight, bias=bias)
        self.save(input)
        dims = self.spatial
        self.kernel, self.weight_size = tuple(weight.shape[2:]), weight.numel()
        self.stride, self.dilation, self.groups = _pair(stride, dims), _pair(dilation, dims), groups
        if padding == "same":  # the odd cell goes to the end, as torch does
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True)]
            self.padding = [(t // 2, t - t // 2) for t in total]
        else:
            self.padding = [(p, p) for p in _pair(0 if padding == "valid" else padding, dims)]

    def run(self, args, kwargs, receive, token):
        if self.call.channels_last and self.spatial == 2 and args and args[0].dim() == 4:
            # Where weights are larger than the images, laying them out anew costs more than it saves.
            few = args[0].numel() < self.weight_size
            x = args[0].contiguous(memory_format=torch.contiguous_format if few else torch.channels_last)
            if x.shape[1] == 1 and not few:
                # One channel is in either layout, and unless its strides say so the result would be in the other.
                x = x.squeeze(1).unsqueeze(-1).movedim(-1, 1)
            args = (x, *args[1:])
            self.save(args[0])
        return super().run(args, kwargs, receive, token)

    def images(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """(x, g) as (samples, windows merged with a sample, channels, *space)."""
        x = self.inputs(g.dtype)
        n, dims = g.shape[0], self.spatial
        return x.reshape(n, -1, *x.shape[-dims - 1 :]), g.reshape(n, -1, *g.shape[-dims - 1 :])

    def padded(self, x: Tensor) -> Tensor:
        """Images as (samples x windows, *padded space, channels)."""
        x = x.flatten(0, 1).movedim(1, -1)
        if any(p != (0, 0) for p in self.padding):
            x = F.pad(x, [0, 0, *(p for pair in reversed(self.padding) for p in pair)])
        return x

    def factors(self, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """(g, patches) as (samples, groups, positions, features); features of patches: (*kernel, channels)."""
        n, windows, dims = *g.shape[:2], self.spatial
        positions, x = g.shape[-dims:], self.padded(x).unflatten(-1, (self.groups, -1))
        strides = x.stride()
        sample, space, (group, channel) = strides[0], strides[1:-2], strides[-2:]
        u = x.as_strided(
            (n * windows, self.groups, *positions, *self.kernel, x.shape[-1]),
            (
                sample,
                group,
                *(s * t for s, t in zip(space, self.stride, strict=True)),
                *(s * d for s, d in zip(space, self.dilation, strict=True)),
                channel,
            ),
        ).reshape(n, windows, self.groups, prod(positions), -1)
        g = g.unflatten(2, (self.groups, -1)).flatten(-dims).mT
        return tuple(t.transpose(1, 2).flatten(2, 3) for t in (g, u))

    def depthwise(self, x: Tensor, g: Tensor) -> Tensor:
        """Per-sample weight gradients (samples, outputs, 1, *kernel) where every group is one channel of `images`."""
        windows, multiplier = x.shape[1], g.shape[2] // self.groups
        x, g = self.padded(x).movedim(-1, 1), g.flatten(0, 1)
        if multiplier > 1:
            x = x.repeat_interleave(multiplier, 1)
        each = depthwise_gradients(x, g, self.kernel, self.stride, self.dilation)
        each = each if windows == 1 else each.unflatten(0, (-1, windows)).sum(1)
        return each.unsqueeze(2)

    def mean_patch(self, g: Tensor) -> Tensor:
        """Patches averaged over positions, (samples, *kernel x channels), one axis of space after the other.

        An offset of the kernel sees a strided window of the padded input; the mean patch needs its sums only.
        """
        x, g = self.images(g)
        space, sums = g.shape[-self.spatial :], self.padded(x)
        for axis in range(self.spatial):  # each step turns one spatial axis into a kernel axis before the channels
            length, step = (space[axis] - 1) * self.stride[axis] + 1, self.stride[axis]
            offsets = range(0, self.kernel[axis] * self.dilation[axis], self.dilation[axis])
            parts = [sums.narrow(1, o, length)[:, ::step].sum(1) for o in offsets]
            sums = torch.stack(parts, -2)
        return sums.flatten(1).unflatten(0, x.shape[:2]).sum(1) / (x.shape[1] * prod(space))

    def one_by_one(self, x: Tensor, g: Tensor, weight: Tensor):
        """Ordinary weight gradients, one sample at a time."""
        if self.padding != [(p, p) for p, _ in self.padding]:
            x = F.pad(x, [p for pair in reversed(self.padding) for p in pair])
            padding = [0] * self.spatial
        else:
            padding = [p for p, _ in self.padding]
        # Cut from all images: a single one would keep a stride of its windows from which torch misreads its layout, and
        # weights in channels-last then get wrong gradients for channel groups in double precision.
        parts = (t.flatten(0, 1).split(t.shape[1]) for t in (x, g))
        for sample, gradient in zip(*parts, strict=True):
            yield torch.ops.aten.convolution_backward(
                gradient,
                sample,
                weight,
                None,
                self.stride,
                padding,
                self.dilation,
                False,
                [0] * self.spatial,
                self.groups,
                [False, True, False],
            )[1]

    def _bias(self, g: Tensor) -> Tensor:
        spatial = range(-self.spatial, 0)
        return g.sum(tuple(spatial) if g.dim() == self.spatial + 2 else (1, *spatial))

    def per_sample(self, slot, g, rows):
        if slot == "bias":
            return self._bias(g[rows])
        x, g = self.images(g)
        if self.groups == x.shape[2] > 1:
            return self.depthwise(x[rows], g[rows])
        g, u = self.factors(x[rows], g[rows])
        gradient = (g.mT @ u).flatten(1, 2)  # (N, O, *kernel, channels)
        return gradient.unflatten(-1, (*self.kernel, -1)).movedim(-1, 2)

    def weighted(self, slot, g, rows, weights):
        if slot == "bias" or any(before != after for before, after in self.padding):
            return super().weighted(slot, g, rows, weights)
        x, g = self.images(g)
        g = (g[rows] * weights.reshape(-1, *[1] * (g.dim() - 1))).flatten(0, 1)
        gradient = getattr(torch.nn.grad, f"conv{self.spatial}d_weight")
        shape, padding = self.slots[slot].value.shape, [before for before, _ in self.padding]
        x = x[rows].flatten(0, 1).contiguous()
        return gradient(x, shape, g.contiguous(), self.stride, padding, self.dilation, self.groups)

    def sketched(self, slot, g, rows, weights, sketch):
        if slot == "bias" or sketch.whole or self.groups > 1 or any(before != after for before, after in self.padding):
            return super().sketched(slot, g, rows, weights, sketch)
        x, g = self.images(g)
        g = g[rows] * weights.reshape(-1, *[1] * (g.dim() - 1))
        options = {"stride": self.stride, "padding": [p for p, _ in self.padding], "dilation": self.dilation}
        convolution = partial(getattr(F, f"conv{self.spatial}d"), **options)
        shape = self.slots[slot].value.shape
        return sketch.of_convolution(g.flatten(0, 1), x[rows].flatten(0, 1), shape, convolution)

    def add_squares(self, g, totals, last=True):
        if "bias" in totals:
            totals["bias"] += self._bias(g).square().sum(0)
        if "weight" in totals:
            self._add_weight(g, totals["weight"])

    def _add_weight(self, g: Tensor, total: Tensor) -> None:
        x, g = self.images(g)
        if self.call.kernel is not None and self.spatial < 3:
            self._add_compiled(x, g, total)
        elif self.groups == 1:
            self._add_ungrouped(x, g, total)
        elif self.groups == x.shape[2]:
            size = max(x[0].numel(), g[0].numel()) * g.element_size()
            for rows in chunks(g.shape[0], size, PATCH_BYTES * torch.get_num_threads(), g.device.type):
                total += self.depthwise(x[rows], g[rows]).square_().sum(0)
        else:
            self._add_grouped(x, g, total)

    def _add_ungrouped(self, x: Tensor, g: Tensor, total: Tensor) -> None:
        positions, on_cpu = g.shape[1] * prod(g.shape[-self.spatial :]), g.device.type == "cpu"
        if positions >= MANY_POSITIONS and positions * total.numel() >= MANY_PRODUCTS and on_cpu:
            self._add_one_by_one(x, g, total)
            return
        if on_cpu and better_turned(total):
            self._turn(total)
        sums = total.movedim(1, -1).reshape(total.shape[0], -1)
        patches = sums.shape[1] * positions * g.element_size()
        chunked = chunks(g.shape[0], patches, PATCH_BYTES * torch.get_num_threads(), g.device.type)
        parts = (self.factors(x[rows], g[rows]) for rows in chunked)
        add_squared_outers(((left[:, 0], right[:, 0]) for left, right in parts), sums)
        if sums.data_ptr() != total.data_ptr():  # a copy, because `total` is not channels-last
            total.copy_(sums.unflatten(1, (*self.kernel, -1)).movedim(-1, 1))

    def _add_grouped(self, x: Tensor, g: Tensor, total: Tensor) -> None:
        """Groups of several channels: all groups of some samples in one batched product."""
        positions = g.shape[1] * prod(g.shape[-self.spatial :])
        if positions >= GROUPED_POSITIONS and g.device.type == "cpu":
            self._add_one_by_one(x, g, total)
            return
        size = (positions * self.groups * total[0].numel() + total.numel()) * g.element_size()
        for rows in chunks(g.shape[0], size, PATCH_BYTES * torch.get_num_threads(), g.device.type):
            left, right = self.factors(x[rows], g[rows])
            squares = (left.mT @ right).square_().sum(0).flatten(0, 1)
            total += squares.unflatten(-1, (*self.kernel, -1)).movedim(-1, 1)

    def _add_one_by_one(self, x: Tensor, g: Tensor, total: Tensor) -> None:
        for gradient in self.one_by_one(x, g, total):  # of the weight only shape and layout matter
            total.addcmul_(gradient, gradient)

    @staticmethod
    def _turn(total: Tensor) -> None:
        """From the first batch on, keep the sums as they are formed: (*kernel, channels, outputs)."""
        rows = total.movedim(1, -1).movedim(0, -1)
        if not rows.is_contiguous():
            total.set_(rows.contiguous().movedim(-1, 0).movedim(-1, 1))

    def _add_compiled(self, x: Tensor, g: Tensor, total: Tensor) -> None:
        """Images (samples, windows, channels, *space); one axis of space is the second of two."""
        one, windows = self.spatial == 1, x.shape[1]
        x, size = x.movedim(2, -1), list(g.shape[3:])
        padding = [before for before, _ in self.padding]
        sums, g = total.movedim(1, -1).contiguous(), g.flatten(3).mT
        whole = sums.unsqueeze(1) if one else sums
        two = [
            [neutral] * one + list(v) for neutral, v in ((1, size), (1, self.stride), (0, padding), (1, self.dilation))
        ]
        for rows in chunks(len(x), x[0].numel() * x.element_size(), PATCH_BYTES if x.stride(-1) != 1 else x.nbytes):
            part = (x[rows].contiguous() if x.stride(-1) != 1 else x[rows]).flatten(0, 1)
            part = part.unsqueeze(1) if one else part
            self.call.kernel(g[rows].flatten(0, 1), part, whole, *two, windows, self.groups)
        if sums.data_ptr() != total.data_ptr():  # a copy, because `total` is not channels-last
            total.copy_(sums.movedim(-1, 1))


class Conv1d(Conv):
    """`F.conv1d`."""

    spatial = 1


class Conv3d(Conv):
    """`F.conv3d`."""

    spatial = 3


RULES = {F.conv2d: Conv, F.conv1d: Conv1d, F.conv3d: Conv3d}
