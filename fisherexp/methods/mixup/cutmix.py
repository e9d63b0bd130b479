"""CutMix: paste a box of one image into another, and mix the labels by area.

    x̃ = M ⊙ x_i + (1 - M) ⊙ x_j,   M = 0 inside a box of sides √(1-λ)·(H, W),   λ ← 1 - area / HW,   then as mixup

Yun et al., ICCV 2019, arXiv 1905.04899. As in the authors' code, the box is centered anywhere, cut at the border, and
λ follows its true area. They cut every batch of ImageNet, every second one of CIFAR: `probability`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fisherexp.config.types import Probability
from fisherexp.methods.mixup.mixing import intensities
from fisherexp.methods.mixup.mixup import Mixup
from fisherexp.methods.recipe import Recipe


def boxes(lam: Tensor, height: int, width: int) -> Tensor:
    """Masks (len(lam), 1, H, W), true inside a box with uniform center and sides √(1-lam) of the image's, cut off
    at the border. lam: (B,) or (1,).
    """
    side = (1 - lam).sqrt()
    inside = []
    for length in (height, width):
        center = torch.randint(length, (len(lam),)).to(lam.device)
        half = (side * length).long() // 2
        position = torch.arange(length, device=lam.device)
        inside.append((position >= (center - half)[:, None]) & (position < (center + half)[:, None]))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


class CutMix(Mixup):
    """probability: of cutting a batch at all. Further options as for mixup."""

    paper = "Yun et al., ICCV 2019, arXiv 1905.04899"
    requires = ("images", "class_labels")

    def __init__(self, model: nn.Module, training: Recipe, probability: Probability = 1.0, **options: Any) -> None:
        super().__init__(model, training, **options)
        self.probability = probability

    def mixed_outputs(self, images: Tensor, partners: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        if torch.rand(()) >= self.probability:
            return self.model(images), torch.ones_like(lam)
        pasted = boxes(lam, *images.shape[-2:])
        lam = 1 - pasted.float().mean((1, 2, 3))
        images = intensities(images)
        return self.model(torch.where(pasted, images[partners], images)), lam
