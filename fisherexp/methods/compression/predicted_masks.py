"""Which filters of a convolution fire for an image, and what a small layer says of it beforehand (FTWT)."""

from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["mean", "norm"]
Softmax = Literal["scaled", "plain", "none"]


class MaskPredictor(nn.Module):
    """Logits (B, n) of which of n filters fire, from the convolution's inputs (B, m, H, W).

    pooling: over places, the mean or the Euclidean norm. softmax: over channels; 'scaled' multiplies it by m, so that
    its entries are near 1 however many there are. One linear layer follows.
    """

    def __init__(self, channels: int, filters: int, pooling: Pooling, softmax: Softmax) -> None:
        super().__init__()
        self.pooling, self.softmax = pooling, softmax
        self.linear = nn.Linear(channels, filters)

    def forward(self, inputs: Tensor) -> Tensor:
        pooled = inputs.mean(dim=(2, 3)) if self.pooling == "mean" else inputs.flatten(2).norm(dim=2)
        if self.softmax != "none":
            pooled = pooled.softmax(dim=1) * (inputs.shape[1] if self.softmax == "scaled" else 1)
        return self.linear(pooled)


def predicted(logits: Tensor) -> Tensor:
    """Mask (B, n) of the filters whose logits are positive, and of the likeliest of each image."""
    return (logits.detach() > 0) | _largest(logits.detach())


@torch.no_grad()
def fired(activations: Tensor, mass: float) -> Tensor:
    """Mask (B, n) of the filters that carry most of the activations (B, n, H, W), at least one per image.

    With the largest magnitude of each filter as its share of a whole, filters are taken by falling share as long as
    they carry no more than `mass` together. mass=1: all with a share above 1e-5.
    """
    peak = activations.abs().amax(dim=(2, 3))
    share = peak / peak.sum(dim=1, keepdim=True).clamp_min(torch.finfo(peak.dtype).tiny)
    if mass == 1:
        return (share > 1e-5) | _largest(share)
    ordered, order = share.sort(dim=1, descending=True, stable=True)
    taken = ordered.cumsum(dim=1) - mass <= 1e-5
    taken[:, 0] = True  # the authors' code may keep none
    return torch.zeros_like(taken).scatter(1, order, taken)


@torch.no_grad()
def uniformly_fired(activations: Tensor, dropped: float) -> Tensor:
    """Mask (B, n) without the ⌊dropped · n⌋ filters of the smallest magnitude, and without those of none."""
    peak = activations.abs().amax(dim=(2, 3))
    ranks = peak.argsort(dim=1, stable=True).argsort(dim=1)
    return ((ranks >= int(dropped * peak.shape[1])) & (peak > 1e-5)) | _largest(peak)


def random_masks(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Masks with as many filters for each image, others at random."""
    ranks = torch.rand(masks.shape, generator=generator).argsort(dim=1).argsort(dim=1).to(masks.device)
    return ranks < masks.sum(dim=1, keepdim=True)


def _largest(values: Tensor) -> Tensor:
    return torch.zeros_like(values, dtype=torch.bool).scatter(1, values.argmax(dim=1, keepdim=True), True)
