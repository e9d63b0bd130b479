"""Features of images by a small convolutional network that nobody trained: a space for distances between samples.

Its weights come from one fixed random stream, so every run of every method on images of these channels has the same
space, without labels, training or a download. Naeem et al., ICML 2020, arXiv 2002.09797, use random embeddings for the
same purpose. They see more than pixels' means and covariances: ReLU and pooling are not linear.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fisherexp.seeds import generator

NAME = "random convolutions"
CHANNELS = 32
SMALLEST = 4  # pixels along a side; the network halves images until they are no larger
POOLED = 2  # regions along a side in which the last layer's mean is taken
CHUNK = 512  # images at a time


@torch.no_grad()
def random_convolutions(images: Tensor) -> Tensor:
    """Features (n, 128), float32, of images (n, C, H, W) in [-1, 1].

    3×3 convolutions of 32 channels with ReLU: one at full size, then each of stride 2 until a side is at most 4 pixels
    long. The means of the last one's quarters are the features.
    """
    return torch.cat([_features(chunk) for chunk in images.float().split(CHUNK)])


def _features(images: Tensor) -> Tensor:
    draw, x, stride = generator("random convolutions", images.shape[1]), images, 1
    while stride == 1 or max(x.shape[-2:]) > SMALLEST:
        fan_in = 9 * x.shape[1]
        weight = torch.randn(CHANNELS, x.shape[1], 3, 3, generator=draw) * math.sqrt(2 / fan_in)
        x = F.conv2d(x, weight.to(x), stride=stride, padding=1).relu()
        stride = 2
    return F.adaptive_avg_pool2d(x, POOLED).flatten(1)
