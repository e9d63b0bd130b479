"""MEMO: one image at a time, make the mean prediction over its views certain, then predict, then forget.

Paper: Zhang, Levine, Finn, NeurIPS 2022, arXiv 2110.09506. With p̄ the mean of the softmaxes of `views` AugMix views,

    θ ← θ₀ - η ∇ H(p̄),  all parameters;   the prediction is that of θ for the image itself.

BatchNorm uses N/(N+1) of the source's statistics and 1/(N+1) of the views', N = `prior`, as in the official ImageNet
code (its CIFAR model has GroupNorm). Views are those of that code on request only, see augmix.py. Alone among its kind
it predicts after its step, which is for that image only.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Count, Size
from fisherexp.methods.test_time_adaptation.adaptation import Adaptation
from fisherexp.methods.test_time_adaptation.augmix import augmix
from fisherexp.methods.test_time_adaptation.entropy import entropy, log_softmax
from fisherexp.methods.test_time_adaptation.norms import mix_statistics
from fisherexp.methods.test_time_adaptation.update import UpdateRule

ROOM = 2**24  # numbers


def marginal_entropy(logits: Tensor) -> Tensor:
    """H(mean of softmaxes), in nats, of logits (V, C)."""
    log_mean = log_softmax(logits).logsumexp(0, keepdim=True) - math.log(len(logits))
    return entropy(log_mean)[0]


class MEMO(Adaptation):
    """views: per image. prior: source images that the statistics count as; 0 for none. episodic: forget after each.
    flip: views may be mirror images; None: where those mean the same (not digits). crop, resampling: see augmix.py."""

    paper = "Zhang et al., NeurIPS 2022, arXiv 2110.09506"
    # ImageNet-C, severity 5, ResNet-50: README of the official EATA code; the mean is that of its figures.
    published = {
        "imagenet/reset_each_shift": {
            "mean_error": (76.1,),
            "error/gaussian_noise": (92.5,),
            "error/shot_noise": (91.3,),
            "error/impulse_noise": (91.0,),
            "error/defocus_blur": (80.3,),
            "error/glass_blur": (87.0,),
            "error/motion_blur": (79.3,),
            "error/zoom_blur": (72.4,),
            "error/snow": (74.7,),
            "error/frost": (71.2,),
            "error/fog": (67.9,),
            "error/brightness": (39.0,),
            "error/contrast": (89.0,),
            "error/elastic_transform": (76.2,),
            "error/pixelate": (67.0,),
            "error/jpeg_compression": (62.5,),
        },
    }
    uses_window = False

    def __init__(
        self,
        model: nn.Module,
        update: UpdateRule,
        views: Count,
        prior: Size,
        episodic: bool,
        flip: bool | None,
        crop: Literal["padded", "resized"],
        resampling: Literal["rounded", "pillow"],
    ) -> None:
        super().__init__(model, update)
        self.views, self.prior, self.episodic = views, prior, episodic
        self.flip, self.crop, self.resampling = flip, crop, resampling

    def prepare(self) -> None:
        mix_statistics(self.model, 1 / (self.prior + 1), remember=False)
        self.model.requires_grad_(True)

    def predict(self, images: Tensor) -> Tensor:
        """Each image by itself, as after a step: the statistics of a batch would mix it with others."""
        return torch.cat(list(map(super().predict, images.split(1))))

    def adapt(self, images: Tensor) -> Tensor:
        # As many images' views at a time as memory has room for: their operations are small.
        together = max(1, ROOM // (self.views * images[0].numel()))
        answers = []
        for some in images.split(together):
            views = augmix(some, self.views, self.generator, self.mirrors(self.flip), self.crop, self.resampling)
            answers += [self._alone(*pair) for pair in zip(some.split(1), views, strict=True)]
        return torch.cat(answers)

    def _alone(self, image: Tensor, views: Tensor) -> Tensor:
        marginal_entropy(self.model(views)).backward()
        self.tally(forward_samples=self.views, backward_samples=self.views)
        self.step()
        answer = self.predict(image)
        if self.episodic:  # whatever is evaluated next meets the source model
            self.restart()
        return answer
