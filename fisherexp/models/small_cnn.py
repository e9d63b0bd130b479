"""A three-layer convolutional network with BatchNorm: seconds on a CPU, yet with what real networks have."""

from torch import Tensor, nn

from fisherexp.config.types import Count
from fisherexp.models.backbone import Backbone


class SmallCNN(Backbone):
    """Three 3×3 convolutions (w, 2w, 2w channels), each with BatchNorm and ReLU; max-pooling after the first
    two, global average pooling at the end; d = 2w. With w = 32, one-channel images and 10 classes it has 57
    thousand weights.

    width: w. input_shape: (C, H, W), H and W at least 4.
    """

    def __init__(self, width: Count = 32, *, input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        if min(input_shape[1:]) < 4:
            raise ValueError(f"SmallCNN needs images of at least 4×4 pixels, got input_shape={tuple(input_shape)}")
        self.num_features = 2 * width
        self.stage_ends = ["layers.3", "layers.7", "layers.10"]
        self.layers = nn.Sequential(
            *_block(input_shape[0], width),
            nn.MaxPool2d(2),
            *_block(width, 2 * width),
            nn.MaxPool2d(2),
            *_block(2 * width, 2 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, d) of normalized images (B, C, H, W)."""
        return self.layers(x)


def _block(channels_in: int, channels_out: int) -> list[nn.Module]:
    # No bias: BatchNorm subtracts the mean, a bias would be a weight without any effect.
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU()]
