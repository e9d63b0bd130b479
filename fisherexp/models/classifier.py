"""The one model interface of the project: inputs → normalization → backbone → features → head → logits."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fisherexp.models.backbone import Backbone
from fisherexp.models.heads import linear_head


class Classifier(nn.Module):
    """A classifier with its input normalization inside, so that images stay uint8 up to the device.

    backbone: module mapping normalized images (B, C, H, W) to features (B, d); it is given several inputs by name.
    num_features: d. num_classes: width of the head.
    mean, std: one number per channel, for intensities in [0, 1]; None leaves intensities as they are.
    head: maps features to logits; by default a linear layer with bias.
    one_logit: of two classes, the head gives one output z only; the logits are then (0, z), so that softmax
        cross-entropy is binary cross-entropy and everything that takes logits stays as it is.

    A Backbone may change the weights that a trained head begins with.

    The constants are persistent buffers: a checkpoint says by itself how its inputs were scaled.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        num_features: int,
        num_classes: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        head: nn.Linear | None = None,
        one_logit: bool = False,
    ) -> None:
        super().__init__()
        if one_logit and num_classes != 2:
            raise ValueError(f"one logit decides between two classes, not {num_classes}")
        self.register_buffer("mean", torch.tensor(0.0) if mean is None else torch.tensor(list(mean)).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(1.0) if std is None else torch.tensor(list(std)).view(-1, 1, 1))
        self.backbone = backbone
        self.one_logit = one_logit
        width = 1 if one_logit else num_classes
        self.head = linear_head(num_features=num_features, num_classes=width) if head is None else head
        if isinstance(backbone, Backbone) and self.head.weight.requires_grad:
            backbone.initialize(self.head)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 images 0…255, or float images already in [0, 1], as the backbone sees them; int64 tokens stay."""
        if images.dtype == torch.int64:
            return images
        if images.dtype == torch.uint8:
            images = images.to(self.mean.dtype) / 255
        return (images - self.mean) / self.std

    def features(self, inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Penultimate features (B, d) of images (B, C, H, W), or of several inputs by name; (B, T, d) of tokens (B, T),
        one per position."""
        return self.backbone(**inputs) if isinstance(inputs, Mapping) else self.backbone(self.normalize(inputs))

    def logits(self, features: Tensor) -> Tensor:
        """Logits (…, num_classes) of features (…, d)."""
        logits = self.head(features)
        return torch.cat([torch.zeros_like(logits), logits], dim=-1) if self.one_logit else logits

    def forward(self, inputs: Tensor | Mapping[str, Tensor] | None = None, **named: Tensor) -> Tensor:
        """Logits (B, num_classes), or (B, T, num_classes) of tokens. Several inputs come as a mapping or by keyword."""
        return self.logits(self.features(named if inputs is None else inputs))
