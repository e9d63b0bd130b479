"""Adapting the statistics of batch normalization alone, without a gradient.

    test:   μ, σ² of the batch                        (Nado et al., arXiv 2006.10963; "BN-1", "norm")
    alpha:  (1 - α) source + α batch                  (Schneider et al., NeurIPS 2020, arXiv 2006.16971)
    ema:    stored ← (1 - α) stored + α batch, by a pass with batch statistics; the answer is a second pass with
            what is then stored

As published, `alpha` is for batches of one (α = 0.1, alias N = 9 source images), and PyTorch's momentum 0.1 serves
`ema`. Variances of the batch are unbiased in `alpha` and `ema`.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Probability
from fisherexp.methods.test_time_adaptation.adaptation import Adaptation
from fisherexp.methods.test_time_adaptation.norms import batch_norms, mix_statistics, use_batch_statistics


class BNAdapt(Adaptation):
    """mode: see above. alpha: share of the batch in `alpha` and `ema`."""

    paper = "Schneider et al., NeurIPS 2020, arXiv 2006.16971; Nado et al., arXiv 2006.10963"
    # ImageNet-C, severity 5, ResNet-50: README of the official EATA code; the mean is that of its figures.
    published = {
        "imagenet/reset_each_shift": {
            "mean_error": (66.5,),
            "error/gaussian_noise": (84.5,),
            "error/shot_noise": (83.9,),
            "error/impulse_noise": (83.7,),
            "error/defocus_blur": (80.0,),
            "error/glass_blur": (80.0,),
            "error/motion_blur": (71.5,),
            "error/zoom_blur": (60.0,),
            "error/snow": (65.2,),
            "error/frost": (65.0,),
            "error/fog": (51.5,),
            "error/brightness": (34.1,),
            "error/contrast": (75.9,),
            "error/elastic_transform": (54.2,),
            "error/pixelate": (49.3,),
            "error/jpeg_compression": (58.9,),
        },
    }

    def __init__(self, model: nn.Module, mode: Literal["test", "alpha", "ema"], alpha: Probability) -> None:
        super().__init__(model)
        self.mode, self.alpha = mode, alpha

    def prepare(self) -> None:
        """Raises ValueError for a model without BatchNorm."""
        if not any(True for _ in batch_norms(self.model)):
            raise ValueError(
                "bn_adapt adapts BatchNorm layers and this model has none; method=lame needs none, "
                "method=tent and method=eata also adapt LayerNorm and GroupNorm"
            )
        if self.mode == "test":
            use_batch_statistics(self.model)
        elif self.mode == "alpha":
            mix_statistics(self.model, self.alpha, remember=False)
        else:
            for module in batch_norms(self.model):
                module.momentum = self.alpha

    @torch.no_grad()
    def adapt(self, images: Tensor) -> Tensor:
        if self.mode == "ema":
            for module in batch_norms(self.model):
                module.train()
            self.model(images)
            self.tally(forward_samples=len(images))
            self.model.eval()
        return self.predict(images)
