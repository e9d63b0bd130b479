"""Empirical risk minimization: plain training.

    min_θ  (1/n) Σ_i  -log p_θ(y_i | x_i)

The baseline of everything, and the source model every post-hoc and test-time method starts from.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.methods.method import LossMean, Method
from fisherexp.methods.recipe import Recipe


class ERM(Method):
    """Minimize mean cross-entropy on the training part, as `training` (a Recipe) says. Of text: over all tokens."""

    paper = "Vapnik, NeurIPS 1991"
    reads = ("images", "tokens")

    def __init__(self, model: nn.Module, training: Recipe) -> None:
        super().__init__(model)
        self.training_recipe = training
        self.epochs = training.epochs
        self.mean_loss = LossMean()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a batch: images (B, C, H, W) and labels (B,), or tokens and the next tokens (B, T)."""
        return F.cross_entropy(self.model(images).flatten(0, -2), labels.flatten())

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = self.loss(images, labels)
        self.mean_loss.add(loss, len(labels))
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", self.mean_loss.take(), sync_dist=True)

    def configure_optimizers(self) -> dict[str, Any]:
        return self.training_recipe.configure(self.model, self.steps_per_epoch)
