"""WINNER's noise on the first two layers of a classifier of images, which is ours: the paper is of networks of sines.

    W_1 ← W_1 + N(0, (a s_0/ω)²),   W_2 ← W_2 + N(0, (a s_1/ω)²),   ω = 30,   s_0, s_1: winner.py, for images

The centroid ψ is the mean of those of the training images. A classifier's inputs are pixels and not coordinates, so
nothing says which strength a fits; then training is plain.
"""

from typing import Any

from torch import nn

from fisherexp.config.types import NonNegative
from fisherexp.methods.mixup.mixing import intensities
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.methods.training.layer_rates import layer_groups, weights
from fisherexp.methods.training.winner import add_noise, noise_scales, spectral_centroid
from fisherexp.scenarios.setting import Setting
from fisherexp.seeds import generator

IMAGES = 200  # the first, of which the centroid is taken


class WinnerClassifier(ERM):
    """strength: a. outcome: centroid, noise (a s_0, a s_1)."""

    paper = "Spectral Bottleneck in Deep Neural Networks: Noise is All You Need, 2025, arXiv 2509.09719"
    requires = ("images",)

    def __init__(self, model: nn.Module, training: Recipe, strength: NonNegative) -> None:
        super().__init__(model, training)
        self.strength = strength

    def batches(self, setting: Setting) -> Any:
        """Those of plain training. The noise is added here, where the images are, before a saved state is loaded."""
        images = intensities(setting.parts[self.fits_on].inputs[:IMAGES]).movedim(1, -1)
        centroid = sum(spectral_centroid(image) for image in images) / len(images)
        scales = tuple(self.strength * scale for scale in noise_scales(centroid, images.shape[1:3], "published"))
        of_layers = list(weights(self.model, layer_groups(self.model, self.training_recipe.lr)).values())
        add_noise(of_layers, scales, generator("winner_classifier", setting.seed))
        self.outcome = {"centroid": centroid, "noise": list(scales)}
        return super().batches(setting)
