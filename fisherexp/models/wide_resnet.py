"""Wide residual networks (Zagoruyko, Komodakis 2016, arXiv 1605.07146), normalizing before convolving."""

from torch import Tensor, nn

from fisherexp.config.types import Count, Probability
from fisherexp.models.backbone import Backbone


class WideResNet(Backbone):
    """WRN-depth-k: three groups of (depth - 4) / 6 blocks with 16k, 32k, 64k channels; d = 64k.

    depth: 6n + 4. widen: k. dropout: probability, between the two convolutions of a block.
    input_shape: (C, H, W). WRN-28-10 with 10 classes has 36.5 million weights.
    """

    name = "wide_resnet"

    def __init__(
        self,
        depth: Count = 16,
        widen: Count = 4,
        dropout: Probability = 0.0,
        *,
        input_shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth of a wide ResNet must be 10, 16, 22, 28, … (6n + 4), got {depth}")
        self.num_features = channels = 64 * widen
        self.stem = _convolution(input_shape[0], 16, 3, 1)
        blocks, before = [], 16
        for width, stride in [(16 * widen, 1), (32 * widen, 2), (64 * widen, 2)]:
            for number in range((depth - 4) // 6):
                blocks.append(WideBlock(before, width, stride if number == 0 else 1, dropout))
                before = width
        self.blocks = nn.Sequential(*blocks)
        group = len(blocks) // 3
        self.stage_ends = [f"blocks.{number * group - 1}" for number in (1, 2, 3)]
        self.top = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, d) of normalized images (B, C, H, W)."""
        return self.top(self.blocks(self.stem(x)))


class WideBlock(nn.Module):
    """x + conv(BN-ReLU(conv(BN-ReLU(x)))). Where shapes change, x becomes conv1×1(BN-ReLU(x))."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(channels_in), nn.ReLU())
        self.residual = nn.Sequential(
            _convolution(channels_in, channels_out, 3, stride),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Dropout(dropout),
            _convolution(channels_out, channels_out, 3, 1),
        )
        changes = stride != 1 or channels_in != channels_out
        self.shortcut = _convolution(channels_in, channels_out, 1, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activate(x)
        return (x if self.shortcut is None else self.shortcut(activated)) + self.residual(activated)


def _convolution(channels_in: int, channels_out: int, size: int, stride: int) -> nn.Conv2d:
    convolution = nn.Conv2d(channels_in, channels_out, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution
