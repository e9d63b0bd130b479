"""Tent: make predictions certain, by the affine parameters of normalization layers.

Paper: Wang, Shelhamer, Liu, Olshausen, Darrell, ICLR 2021, arXiv 2006.10726. With θ̃ the affine parameters of all
normalization layers, BatchNorm by batch statistics, H the entropy of a prediction,

    one step per batch on   L = (1/B) Σ_i H(p_θ(x_i));   the prediction is that of the same forward pass, before it.

The official code collects BatchNorm2d alone and runs in train mode; here LayerNorm and GroupNorm adapt as well, and
dropout is off.
"""

import torch
from torch import Tensor, nn

from fisherexp.methods.test_time_adaptation.adaptation import Adaptation
from fisherexp.methods.test_time_adaptation.entropy import entropy_gradient, log_softmax
from fisherexp.methods.test_time_adaptation.update import UpdateRule


class Tent(Adaptation):
    """update: the optimizer."""

    paper = "Wang et al., ICLR 2021, arXiv 2006.10726"
    # ImageNet-C, severity 5, ResNet-50: README of the official EATA code; the mean is that of its figures.
    published = {
        "imagenet/reset_each_shift": {
            "mean_error": (57.4,),
            "error/gaussian_noise": (71.6,),
            "error/shot_noise": (69.8,),
            "error/impulse_noise": (69.9,),
            "error/defocus_blur": (71.8,),
            "error/glass_blur": (72.7,),
            "error/motion_blur": (58.6,),
            "error/zoom_blur": (50.5,),
            "error/snow": (52.9,),
            "error/frost": (58.7,),
            "error/fog": (42.5,),
            "error/brightness": (32.6,),
            "error/contrast": (74.9,),
            "error/elastic_transform": (45.2,),
            "error/pixelate": (41.5,),
            "error/jpeg_compression": (47.7,),
        },
    }

    def __init__(self, model: nn.Module, update: UpdateRule) -> None:
        super().__init__(model, update)

    def prepare(self) -> None:
        self.adapt_norms()

    def adapt(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        self.tally(forward_samples=len(images))
        log_p = log_softmax(logits.detach())
        weights = self.weigh(log_p)
        if weights is not None:
            logits.backward(entropy_gradient(log_p, weights).to(logits.dtype))
            self.pull()
            self.step()
        return logits

    def weigh(self, log_p: Tensor) -> Tensor | None:
        """Weight (B,) of each sample's entropy in the loss, for log-probabilities (B, C); None for no update."""
        self.tally(backward_samples=len(log_p))
        return torch.full_like(log_p[:, 0], 1 / len(log_p))

    def pull(self) -> None:
        """Add to the gradients what does not depend on the batch."""
