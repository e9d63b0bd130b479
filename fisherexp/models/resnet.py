"""ResNet-18 for small images (He et al. 2016, arXiv 1512.03385): 3×3 stem and no max-pooling."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from fisherexp.config.types import Count
from fisherexp.models.backbone import Backbone

# Of GroupNorm, as in the networks that the test-time field takes where batch statistics fail (Sun et al., ICML 2020).
GROUPS = 8


class ResNet18(Backbone):
    """Four stages of two basic blocks with w, 2w, 4w, 8w channels; d = 8w.

    Each stage but the first halves the image. With w = 64, three channels and 10 classes there are 11.17
    million weights.

    width: w.
    stem_stride: 2 halves the image at once, which takes a quarter of the time.
    norm: BatchNorm, or GroupNorm of 8 groups, which no other image of a batch has a part in.
    input_shape: (C, H, W).

    Raises ValueError for a width that 8 groups cannot share.
    """

    name = "resnet18"

    def __init__(
        self,
        width: Count = 64,
        stem_stride: Count = 1,
        norm: Literal["batch", "group"] = "batch",
        *,
        input_shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        if norm == "group" and width % GROUPS:
            raise ValueError(f"model.norm=group has {GROUPS} groups: model.width must be a multiple, got {width}")
        normalize = nn.BatchNorm2d if norm == "batch" else lambda channels: nn.GroupNorm(GROUPS, channels)
        self.num_features = 8 * width
        stem = _convolution(input_shape[0], width, 3, stem_stride)
        self.stem = nn.Sequential(stem, normalize(width), nn.ReLU())
        stages = []
        for before, after, stride in [(1, 1, 1), (1, 2, 2), (2, 4, 2), (4, 8, 2)]:
            stages.append(BasicBlock(before * width, after * width, stride, normalize))
            stages.append(BasicBlock(after * width, after * width, 1, normalize))
        self.stages = nn.Sequential(*stages)
        self.stage_ends = ["stages.1", "stages.3", "stages.5", "stages.7"]
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, d) of normalized images (B, C, H, W)."""
        return self.pool(self.stages(self.stem(x)))


class BasicBlock(nn.Module):
    """ReLU(shortcut(x) + conv-norm-ReLU-conv-norm(x)); the shortcut is conv1×1-norm where shapes change."""

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, normalize: Callable[[int], nn.Module] = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _convolution(channels_in, channels_out, 3, stride),
            normalize(channels_out),
            nn.ReLU(),
            _convolution(channels_out, channels_out, 3, 1),
            normalize(channels_out),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(_convolution(channels_in, channels_out, 1, stride), normalize(channels_out))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.shortcut(x) + self.residual(x))


def _convolution(channels_in: int, channels_out: int, size: int, stride: int) -> nn.Conv2d:
    convolution = nn.Conv2d(channels_in, channels_out, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution
