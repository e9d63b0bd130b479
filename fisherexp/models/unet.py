"""A small U-Net that predicts noise (Ronneberger et al., MICCAI 2015; with time as in Ho et al., arXiv 2006.11239)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.types import Count, Probability

LONGEST_PERIOD = 10_000.0
GROUPS = 8


def time_embedding(time: Tensor, size: int) -> Tensor:
    """Cosines and sines of time (B,) at size/2 geometrically spaced frequencies, (B, size)."""
    half = size // 2
    rates = torch.exp(-math.log(LONGEST_PERIOD) * torch.arange(half, device=time.device) / half)
    angles = time[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], 1)


class Block(nn.Module):
    """Norm, SiLU and 3×3 convolution, twice, the time in between, a shortcut around. (B, c, H, W) -> (B, d, H, W)."""

    def __init__(self, channels_in: int, channels_out: int, time_size: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(GROUPS, channels_in), nn.SiLU(), _convolution(channels_in, channels_out)
        )
        self.time = nn.Linear(time_size, 2 * channels_out)
        self.norm = nn.GroupNorm(GROUPS, channels_out)
        self.second = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), _convolution(channels_out, channels_out))
        self.shortcut = nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)
        nn.init.zeros_(self.second[-1].weight)  # every block begins as its shortcut
        nn.init.zeros_(self.second[-1].bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(F.silu(time))[:, :, None, None].chunk(2, 1)
        return self.shortcut(x) + self.second(self.norm(self.first(x)) * (1 + scale) + shift)


class Attention(nn.Module):
    """One head of self-attention over all pixels, with a shortcut. (B, c, H, W) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.query_key_value(self.norm(x)).flatten(2).mT.chunk(3, 2)
        attended = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(attended.mT.unflatten(2, x.shape[-2:]))


class UNet(nn.Module):
    """Two levels: blocks at full resolution, blocks and attention at half of it, and back with the full one's features.

    width: channels at full resolution, a multiple of 8; twice as many at half of it. blocks: on each level and way.
    dropout: in every block. input_shape: (C, H, W), H and W even. With width 32 and 1 block: 0.32 million weights.
    """

    problems = ("generative",)
    provides = ()

    def __init__(
        self, width: Count = 32, blocks: Count = 1, dropout: Probability = 0.0, *, input_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        channels, height, across = self.input_shape
        if width % GROUPS:
            raise ValueError(
                f"width={width}: the U-Net needs a multiple of {GROUPS}, e.g. {-(-width // GROUPS) * GROUPS}"
            )
        if height % 2 or across % 2:
            raise ValueError(f"the U-Net needs images of even height and width, got input_shape={tuple(input_shape)}")
        self.width, time_size = width, 4 * width

        def stack(channels_in: int, channels_out: int) -> nn.ModuleList:
            widths = [channels_in] + [channels_out] * (blocks - 1)
            return nn.ModuleList(Block(w, channels_out, time_size, dropout) for w in widths)

        self.time = nn.Sequential(nn.Linear(width, time_size), nn.SiLU(), nn.Linear(time_size, time_size))
        self.enter = _convolution(channels, width)
        self.down = stack(width, width)
        self.shrink = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.inner = stack(2 * width, 2 * width)
        self.attention = Attention(2 * width)
        self.back = stack(2 * width, 2 * width)
        self.grow = _convolution(2 * width, width)
        self.up = stack(2 * width, width)
        self.leave = nn.Sequential(nn.GroupNorm(GROUPS, width), nn.SiLU(), _convolution(width, channels))
        nn.init.zeros_(self.leave[-1].weight)  # the first prediction is zero, the mean of the noise
        nn.init.zeros_(self.leave[-1].bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Noise (B, C, H, W) in images (B, C, H, W) at times (B,), in [0, 1000)."""
        time = self.time(time_embedding(time, self.width))
        full = _through(self.down, self.enter(x), time)
        half = self.attention(_through(self.inner, self.shrink(full), time))
        half = _through(self.back, half, time)
        grown = self.grow(F.interpolate(half, scale_factor=2, mode="nearest"))
        return self.leave(_through(self.up, torch.cat([full, grown], 1), time))


def _through(blocks: nn.ModuleList, x: Tensor, time: Tensor) -> Tensor:
    for block in blocks:
        x = block(x, time)
    return x


def _convolution(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)
