"""MNIST in six orientations: each domain is a sixth of the digits, turned by its angle.

Ghifary, Kleijn, Zhang, Balduzzi, ICCV 2015, arXiv 1508.07680, cut as in DomainBed (arXiv 2007.01434): all 70,000
digits, shuffled, every sixth one to a domain; bilinear, black outside.
"""

from dataclasses import replace
from typing import Any

import torch

from fisherexp.config.types import AtLeastOne
from fisherexp.data.augment import rotate
from fisherexp.data.domains import DomainData, pooled
from fisherexp.data.tensors import TensorSet
from fisherexp.data.torchvision_sets import MNIST
from fisherexp.seeds import generator


class RotatedMNIST(DomainData):
    """angles: degrees, anticlockwise; one domain each, named by it. Further options: see ImageData."""

    title = "rotated MNIST"
    num_classes = 10
    input_shape = (1, 28, 28)
    class_names = MNIST.class_names
    mean = MNIST.mean
    std = MNIST.std
    mirrors = False

    def __init__(self, angles: AtLeastOne[float] = (0.0, 15.0, 30.0, 45.0, 60.0, 75.0), **options: Any) -> None:
        super().__init__(**options)
        self.angles = angles
        self._upright: TensorSet | None = None

    def domains(self, seed: int) -> dict[str, TensorSet]:
        if self._upright is None:
            digits = MNIST(root=str(self.root), download=self.download).load()
            self._upright = pooled([digits.train, digits.test])
        order = torch.randperm(len(self._upright), generator=generator("stripes", seed))
        stripes = [order[i :: len(self.angles)].sort().values for i in range(len(self.angles))]
        return {f"{a:g}": turned(self._upright.subset(s), a) for a, s in zip(self.angles, stripes, strict=True)}


def turned(images: TensorSet, degrees: float) -> TensorSet:
    """Every image turned anticlockwise about its center; nothing is resampled at 0 degrees."""
    if not degrees:
        return images
    return replace(images, inputs=rotate(images.inputs, torch.full((len(images),), float(degrees))))
