"""The head alone: a linear classifier on the source's features, which stay as they are.

    φ = the head's weight and bias

The lower baseline of every adapter.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Positive
from fisherexp.data.batch import Batch
from fisherexp.methods.finetuning.finetuning import HEAD, FineTuning
from fisherexp.methods.recipe import Recipe
from fisherexp.models.eval_mode import eval_mode
from fisherexp.scenarios.setting import Setting


class HeadOnly(FineTuning):
    """features: 'each_pass': of augmented images, by a network in training mode, dropout and all. 'once': of the images
        as they are, in evaluation mode; the network is gone through once, and any number of epochs costs next to
        nothing.
    Further options: see FineTuning.
    """

    name = "head_only"
    paper = "baseline of Hu et al., ICLR 2022, arXiv 2106.09685"
    requires = ("features",)
    weighs_samples = True
    search = {"finetune.lr": "tag(log, interval(1e-3, 1))"}
    without_effect = {"features": "the same numbers, wherever training draws nothing and augments nothing"}

    def __init__(
        self,
        model: nn.Module,
        finetune: Recipe,
        head_lr: Positive | None = None,
        features: Literal["each_pass", "once"] = "each_pass",
    ) -> None:
        super().__init__(model, finetune, head_lr)
        self.features = features
        self.setting: Setting | None = None
        self.known: Tensor | None = None  # features of the training samples, in their order

    def freeze(self) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name.startswith(HEAD))
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise ValueError("method=head_only: this network has no head to train that is not its token embedding, too")

    def batches(self, setting: Setting) -> Any:
        if self.features == "each_pass":
            return super().batches(setting)
        self.setting = setting
        samples = setting.parts[self.fits_on]
        return setting.loader_of(samples.tagged(position=torch.arange(len(samples))), shuffle=True, augment=False)

    def on_train_start(self) -> None:
        """Here and not with the batches, so that what it costs is counted."""
        if self.setting is not None:
            self.known = self._features(self.setting)

    def loss(self, batch: Batch) -> Tensor:
        if self.known is None:
            return super().loss(batch)
        logits = self.model.logits(self.known[batch.tags["position"]])
        return self.objective.loss(logits, batch.targets, weights=batch.weights)

    @torch.no_grad()
    def _features(self, setting: Setting) -> Tensor:
        """(n, …, d), of all training samples, on every process."""
        found: list[Tensor] = []
        catch = self.model.head.register_forward_pre_hook(lambda head, inputs: found.append(inputs[0]))
        try:
            with eval_mode(self.model):
                for batch in setting.loader(self.fits_on, rank=0, world_size=1):
                    self.model(batch.inputs)
        finally:
            catch.remove()
        return torch.cat(found)
