"""Training on several domains at once: the loop that all methods of this wing share.

    min_θ  mean_e L_e(θ) + λ(t) P(features, logits, labels of every domain)

The mean of the domains' means differs from the mean over all samples where domains differ in size. No gradient is
stopped between features and penalty. With several processes every one of them computes loss and penalty of the whole
batch, from features and logits of its own share and those that the others send.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fisherexp.data.batch import Batch
from fisherexp.data.composite import SideBySide
from fisherexp.methods.domain_generalization.batches import by_domain, of_every_domain
from fisherexp.methods.domain_generalization.domain import Domain, losses, seen, whole
from fisherexp.methods.domain_generalization.penalty import Penalty
from fisherexp.methods.method import LossMean, ModelMethod
from fisherexp.methods.recipe import Recipe
from fisherexp.scenarios.setting import Setting


class DomainMethod(ModelMethod):
    """A subclass says what is to be alike in all domains by `misalignment`, and may weigh their losses by `risk`.

    penalizes: whether it has a penalty at all; without one no weight changes, and no optimizer begins anew.
    by_bias: whether its penalty is of derivatives by the head's bias, too, which must then be there.

    training: one epoch is a pass over the largest domain. penalty: how the penalty joins the loss.

    Raises ValueError for a head without the bias that it needs.
    """

    scenarios = ("domains",)
    requires = ("class_labels", "features")
    fits_on = "domains"
    penalizes: ClassVar[bool] = True
    by_bias: ClassVar[bool] = False

    def __init__(self, model: nn.Module, training: Recipe, penalty: Penalty) -> None:
        super().__init__(model)
        if self.by_bias and model.head.bias is None:
            raise ValueError(
                f"{type(self).__name__} compares derivatives by the head's weight and bias, and this head has no bias: "
                "take head=linear, or method=cma, which knows none"
            )
        self.training_recipe, self.penalty = training, penalty
        self.epochs = training.epochs
        self.setting: Setting | None = None
        self.mean_loss, self.mean_penalty = LossMean(), LossMean()

    def risk(self, domains: Sequence[Domain]) -> Tensor:
        """The loss to minimize, a scalar: the mean of the domains' losses."""
        return losses(domains).mean()

    def misalignment(self, domains: Sequence[Domain]) -> Tensor | None:
        """The penalty, a scalar, zero where domains agree; None for none."""
        return None

    def penalized_risk(self, batch: Batch) -> Tensor:
        """The loss of a step, a scalar. The batch is tagged by domain."""
        domains = self.domains(batch)
        with torch.autocast(batch.targets.device.type, enabled=False):
            penalty = self.misalignment(domains)
            if penalty is not None:
                self.mean_penalty.add(penalty, batch.size)
            return self.penalty.joined(self.risk(domains), penalty, self.model, self.global_step)

    def domains(self, batch: Batch) -> list[Domain]:
        """What the model makes of each domain, from one pass over the joint batch; on every rank, of all of it."""
        values = (*seen(self.model, batch.inputs), batch.targets)
        parts = [by_domain(each, batch.tags["domain"]) for each in values]
        return [whole(Domain(*part)) for part in zip(*parts, strict=True)]

    def batches(self, setting: Setting) -> SideBySide:
        self.setting = setting
        return of_every_domain(setting)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.penalizes and self.penalty.reset_optimizer and 0 < self.penalty.anneal == self.global_step:
            self.optimizers().state.clear()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.penalized_risk(batch)
        self.mean_loss.add(loss, batch.size)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", self.mean_loss.take(), sync_dist=True)
        if self.mean_penalty.count:
            self.log("train/penalty", self.mean_penalty.take(), sync_dist=True)

    def configure_optimizers(self) -> dict[str, Any]:
        return self.training_recipe.configure(self.model, self.steps_per_epoch)
