"""Empirical risk minimization: plain training.

    min_θ  (1/n) Σ_i  -log p_θ(y_i | x_i)

The baseline of everything, and the source model every post-hoc and test-time method starts from.
"""

from typing import Any

from torch import Tensor, nn

from fisherexp.data.batch import Batch
from fisherexp.methods.method import LossMean, ModelMethod
from fisherexp.methods.recipe import Recipe


class ERM(ModelMethod):
    """Minimize the mean loss on the training part, as `training` (a Recipe) says; of text, over all tokens."""

    paper = "Vapnik, NeurIPS 1991"
    weighs_samples = True
    shards = True

    def __init__(self, model: nn.Module, training: Recipe) -> None:
        super().__init__(model)
        self.training_recipe = training
        self.epochs = training.epochs
        self.mean_loss = LossMean()

    def loss(self, batch: Batch) -> Tensor:
        """Mean loss of a batch, a scalar, as the problem's objective has it."""
        return self.objective.loss(self.model(batch.inputs), batch.targets, weights=batch.weights)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.mean_loss.add(loss, batch.size)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", self.mean_loss.take(), sync_dist=True)

    def configure_optimizers(self) -> dict[str, Any]:
        return self.training_recipe.configure(self.model, self.steps_per_epoch)
