"""Semi-supervised training: the loop that FixMatch and its successors share.

    L(θ) = CE(f(weak(x)), y) over labelled samples + λ · u(f(weak(x')), f(strong(x'))) over unlabelled ones

What a model says of a weak view of an image is the target for a strong view of it, as u says. All views of a step go
through the model as one batch. What is evaluated is the exponential moving average of the weights, with the model's own
buffers, as in the published code. Of the published recipe, Nesterov's momentum and a cosine that ends above zero are
left out; weights decay, biases and scales of normalization do not.
"""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fisherexp.config.types import Count, NonNegative, Share
from fisherexp.data.batch import Batch
from fisherexp.data.composite import SideBySide
from fisherexp.methods.method import LossMean, ModelMethod
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.views import strong, weak
from fisherexp.scenarios.setting import Setting


class SemiSupervised(ModelMethod):
    """A subclass gives the loss of unlabelled samples, and may have parts of its own (`begin`).

    training: an epoch is a pass over the unlabelled samples. ratio: unlabelled samples in a step for each labelled one,
    of which there are `data.batch_size`, or as many as have labels. unlabelled_weight: λ. average: of the moving
    average of the weights, what it keeps at each step.

    Of the last epoch it reports the share of unlabelled samples that had a part in the loss (`used_share`, %) and the
    accuracy of the classes they were taken for (`used_accuracy`, %).
    """

    requires = ("images", "class_labels", "features")
    scenarios = ("few_labels",)
    fits_on = "unlabelled"
    looks_at = ("train",)
    headings = {"used_share": "unlabelled\nused %", "used_accuracy": "of these\nright %"}
    better = {"used_accuracy": "higher"}
    counts_with = {"ratio": {"ratio": 1}}

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        ratio: Count = 7,
        unlabelled_weight: NonNegative = 1.0,
        average: Share = 0.999,
    ) -> None:
        super().__init__(model)
        self.training_recipe, self.epochs = training, training.epochs
        self.ratio, self.unlabelled_weight = ratio, unlabelled_weight
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(average)).requires_grad_(False)
        self.mirrors = True
        self.mean_loss, self.mean_used, self.mean_right = LossMean(), LossMean(), LossMean()

    @abstractmethod
    def unlabelled_losses(self, probabilities: Tensor, strong: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each unlabelled sample (B,), and which samples have a part in it, a mask (B,).

        probabilities: of classes, by the weak view, constant (B, C). strong: logits (B, C) of the strong view.
        features: of that (B, d).
        """

    def begin(self, num_classes: int) -> None:
        """Make what the method keeps from step to step, as modules and buffers."""

    def batches(self, setting: Setting) -> SideBySide:
        self.mirrors = setting.data.mirrors
        self.begin(setting.data.num_classes)
        size = setting.data.batch_size
        sizes = {"train": size, "unlabelled": self.ratio * size}
        loaders = [
            setting.loader_of(setting.parts[part].tagged(labelled=part == "train"), shuffle=True, batch_size=size)
            for part, size in sizes.items()
        ]
        return SideBySide(*loaders, leading=1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        labelled = batch.tags["labelled"]
        known, other = batch.select(labelled), batch.select(~labelled)
        views = [weak(known.inputs, self.mirrors), weak(other.inputs, self.mirrors), strong(other.inputs, self.mirrors)]
        features = self.model.features(torch.cat(views))
        sizes = [known.size, other.size, other.size]
        of_known, of_weak, of_strong = self.model.logits(features).split(sizes)
        probabilities = self.probabilities(of_weak.detach())
        losses, used = self.unlabelled_losses(probabilities, of_strong, features[-other.size :])
        loss = F.cross_entropy(of_known, known.targets) + self.unlabelled_weight * losses.mean()
        self.mean_loss.add(loss, batch.size)
        self.mean_used.add(used.float().mean(), other.size)
        right = probabilities.argmax(1) == other.targets  # for the report alone
        self.mean_right.add((right & used).float().mean(), other.size)
        return loss

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of the classes, by the weak view (B, C)."""
        return logits.softmax(1)

    def on_train_batch_start(self, *batch: Any) -> None:
        # Not behind the step: a state that is saved there would lack it.
        self.averaged.update_parameters(self.model)

    def on_train_epoch_end(self) -> None:
        used, right = self.mean_used.take(), self.mean_right.take()
        figures = {"used_share": 100 * used, "used_accuracy": 100 * right / used if used else 0.0}
        self.log("train/loss", self.mean_loss.take(), sync_dist=True)
        self.log("train/used_share", figures["used_share"], sync_dist=True)
        self.outcome["metrics"] = figures

    def on_train_end(self) -> None:
        self.averaged.update_parameters(self.model)
        self.model.load_state_dict(self.averaged.module.state_dict())

    def configure_optimizers(self) -> dict[str, Any]:
        parameters = [p for part in self.trained() for p in part.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.dim() > 1]},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        return self.training_recipe.configure_groups(groups, self.steps_per_epoch)

    def trained(self) -> Iterable[nn.Module]:
        """What the optimizer trains."""
        return (self.model,)
