"""Mixup: train on convex combinations of two images and of their labels.

    x̃ = λ x_i + (1 - λ) x_j,   min_θ  λ L(f(x̃), y_i) + (1 - λ) L(f(x̃), y_j),   λ ~ Beta(α, α)

Zhang et al., ICLR 2018, arXiv 1710.09412. L is the cross-entropy, or the squared error to the mixed one-hot target:
with that loss last-layer features become convex combinations, too, with the cross-entropy they do not (Fisher, Meng,
Papyan, ICLR 2024, arXiv 2402.06171). As in the authors' code, one λ and one random permutation per batch.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import NonNegative
from fisherexp.data.batch import Batch
from fisherexp.methods.mixup.mixing import draw_lambda, intensities, mix, mixed_cross_entropy, mixed_squared_error
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM

LOSSES = {"ce": mixed_cross_entropy, "mse": mixed_squared_error}


class Mixup(ERM):
    """alpha: of the Beta distribution; 0 is plain training. loss: 'ce' or 'mse'; with the latter outputs approach the
    target themselves (`raw_outputs`): they are no logits, and a softmax of them is no probability to be evaluated by.
    lambda_per: one weight for the whole batch, or one for each sample.
    """

    paper = "Zhang et al., ICLR 2018, arXiv 1710.09412"
    search = {"alpha": "tag(log, interval(0.05, 4))"}
    requires = ("floats", "class_labels")
    weighs_samples = False

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        alpha: NonNegative = 1.0,
        loss: Literal["ce", "mse"] = "ce",
        lambda_per: Literal["batch", "sample"] = "batch",
    ) -> None:
        super().__init__(model, training)
        self.alpha, self.lambda_per = alpha, lambda_per
        self.mixed_loss = LOSSES[loss]
        self.raw_outputs = loss == "mse"

    def partners(self, labels: Tensor) -> Tensor:
        """Index of the sample each one is mixed with, shape (B,)."""
        return torch.randperm(len(labels)).to(labels.device)

    def mixed_outputs(self, images: Tensor, partners: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, C) of the mixtures, and the weights (B,) or (1,) of the first image's label."""
        images = intensities(images)
        return self.model(mix(images, images[partners], lam)), lam

    def loss(self, batch: Batch) -> Tensor:
        labels = batch.targets
        lam = draw_lambda(self.alpha, 1 if self.lambda_per == "batch" else len(labels)).to(labels.device)
        partners = self.partners(labels)
        logits, lam = self.mixed_outputs(batch.inputs, partners, lam)
        return self.mixed_loss(logits, labels, labels[partners], lam)
