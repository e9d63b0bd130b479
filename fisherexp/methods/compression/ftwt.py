"""FTWT, fire together wire together: filters of each layer are left out image by image, as a predictor says beforehand.

    y_l = ReLU(BN(conv(x_l))) ∘ m_l,   m_l = [P_l(pool(x_l)) > 0],   loss = ℓ + w (1/L) Σ_l Σ_filters BCE(P_l, fired_l)

Elkerdawy et al., CVPR 2022, arXiv 2110.08232. fired_l are the filters that carry most of the layer's own activations
before the mask, see predicted_masks.py; m_l passes no gradient. Networks are chains of convolutions, and ResNets of
basic blocks: the last filters of a block are masked before its shortcut is added, or after that and the ReLU, with the
shortcut's share. The authors' code has both.

Where the authors' code differs: there masks may be empty, here at least one filter stays. There inputs of the layer
after a block that is masked before the addition count as that mask; here what the shortcut carries counts, too. There
shortcuts have no weights; here their convolutions are counted, and have no mask or predictor of their own. There
predictors are given means over places and the plain softmax; here by default norms and the softmax times the number of
channels. As there the schedule is the network's alone, and predictors keep their learning rate.

The model keeps its layers and names; predictors stand beside it and act by hooks of torch's.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.types import Positive, Probability, Size
from fisherexp.data.batch import Batch
from fisherexp.methods.compression.coded_training import CodedTraining
from fisherexp.methods.compression.gated_layers import gated_layers, gated_multiply_adds
from fisherexp.methods.compression.predicted_masks import (
    MaskPredictor,
    fired,
    predicted,
    random_masks,
    uniformly_fired,
)
from fisherexp.methods.recipe import Recipe
from fisherexp.models.eval_mode import eval_mode


class FTWT(CodedTraining):
    """mass: share of a layer's activation that is kept. by: 'mass', or 'uniform', the same number of filters for each
        image, ⌊(1 - mass) n⌋ fewer than all.
    coupling: 'decoupled', or 'joint', which lets the predictors' loss reach earlier layers through their inputs.
    residual_mask: where the last filters of a residual block are masked, see `gated_layers`.
    cooldown: share of the epochs after which w is 0; it is 1 before. pooling, softmax: see MaskPredictor.
    predictor_lr: constant learning rate of the predictors, without weight decay. training: the recipe of the rest.
    test_mask: what is evaluated with: 'predicted'; 'random', as many filters for each image; 'fired', which knows the
        activations; 'none'. Training is the same.
    fraction_bits: see CodedTraining; the file holds the predictors, too.

    outcome: under "metrics" multiply_adds for an image of the test part, mean; cut, by how much fewer those of the
        convolutions are than without masks, %; mask_accuracy, share of filters whose mask is as they fired, %.
    """

    name = "ftwt"
    paper = "Elkerdawy et al., CVPR 2022, arXiv 2110.08232"
    start = "source"
    requires = ("images",)
    weighs_samples = False
    headings = {"stored_bytes": "stored\nbytes", "multiply_adds": "multiply\nadds", "cut": "cut %"}
    better = {"stored_bytes": "lower", "multiply_adds": "lower", "cut": "higher"}
    counts_with = {"residual_mask": {"/model": "resnet18", "/model.width": 8}}

    def __init__(
        self,
        model: nn.Module,
        mass: Probability,
        by: Literal["mass", "uniform"],
        coupling: Literal["decoupled", "joint"],
        residual_mask: Literal["before", "after"],
        cooldown: Probability,
        pooling: Literal["mean", "norm"],
        softmax: Literal["scaled", "plain", "none"],
        predictor_lr: Positive,
        test_mask: Literal["predicted", "random", "fired", "none"],
        training: Recipe,
        fraction_bits: Size,
    ) -> None:
        super().__init__(model, training, fraction_bits)
        self.mass, self.by, self.coupling, self.test_mask = mass, by, coupling, test_mask
        self.predicted_epochs, self.predictor_lr = int(cooldown * self.epochs), predictor_lr
        self.layers = list(gated_layers(model, residual_mask).values())
        sizes = [(layer.conv.in_channels, layer.conv.out_channels) for layer in self.layers]
        self.predictors = nn.ModuleList(MaskPredictor(*size, pooling, softmax) for size in sizes)
        self.inputs: dict[int, Tensor] = {}
        self.passes: dict[int, tuple[Tensor, Tensor, Tensor, int]] = {}  # logits, mask, fired, places of a layer
        self.draws = torch.Generator().manual_seed(0)
        for number, layer in enumerate(self.layers):
            layer.conv.register_forward_pre_hook(lambda _, inputs, n=number: self.inputs.update({n: inputs[0]}))
            layer.gate.register_forward_hook(lambda _, __, output, n=number: self.gate(n, output))

    def source_loaded(self) -> None:
        for predictor in self.predictors:  # anew: here random numbers are the method's own
            predictor.linear.reset_parameters()

    def gate(self, number: int, activations: Tensor) -> Tensor:
        """A layer's activations where its filters are predicted to fire."""
        inputs = self.inputs.pop(number)
        logits = self.predictors[number](inputs if self.coupling == "joint" else inputs.detach())
        by_mass = self.by == "mass"
        target = fired(activations, self.mass) if by_mass else uniformly_fired(activations, 1 - self.mass)
        mask = predicted(logits)
        if not self.model.training and self.test_mask != "predicted":
            others = {"random": lambda: random_masks(mask, self.draws), "fired": lambda: target}
            mask = others.get(self.test_mask, lambda: torch.ones_like(mask))()
        self.passes[number] = logits, mask, target, activations[0, 0].numel()
        return activations * mask[:, :, None, None]

    def mask_loss(self) -> Tensor:
        """Of the last pass: BCE summed over filters, mean over images and layers."""
        losses = [
            F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none").sum(1).mean()
            for logits, _, target, _ in self.passes.values()
        ]
        return torch.stack(losses).mean()

    def loss(self, batch: Batch) -> Tensor:
        loss = super().loss(batch)
        return loss + self.mask_loss() if self.current_epoch < self.predicted_epochs else loss

    def configure_optimizers(self) -> dict[str, Any]:
        network = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        own = {"params": list(self.predictors.parameters()), "lr": self.predictor_lr, "weight_decay": 0.0}
        configured = self.training_recipe.configure_groups([{"params": network}, own], self.steps_per_epoch)
        factors = [lambda step: self.training_recipe.factor(step, self.steps_per_epoch), lambda _: 1.0]
        scheduler = torch.optim.lr_scheduler.LambdaLR(configured["optimizer"], factors)
        return configured | {"lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def stored(self) -> nn.Module:
        return nn.ModuleDict({"model": self.model, "predictors": self.predictors})

    def on_train_end(self) -> None:
        super().on_train_end()
        found = self.outcome["metrics"]
        by_layer = self.outcome["multiply_adds_by_layer"]
        convolutions = [name for name, layer in self.model.named_modules() if isinstance(layer, nn.Conv2d)]
        rest = found["multiply_adds"] - sum(by_layer[name] for name in convolutions)
        gated, dense, right = self.measured()
        found |= {"multiply_adds": gated + rest, "cut": 100 * (1 - gated / dense), "mask_accuracy": 100 * right}

    @torch.no_grad()
    def measured(self) -> tuple[float, float, float]:
        """Of the test part: multiply-adds of the convolutions for an image, with masks, mean, and without; share of
        filters whose mask is as they fired."""
        gated = dense = images = right = filters = 0
        with eval_mode(self.model):
            for batch in self.setting.loader("test"):
                self.model.forward(batch.inputs)
                images += batch.size
                _, masks, targets, places = zip(*self.passes.values(), strict=True)
                of_images, of_any = gated_multiply_adds(self.layers, masks, places)
                gated, dense = gated + of_images.sum().item(), dense + batch.size * of_any
                right += sum(int((mask == target).sum()) for mask, target in zip(masks, targets, strict=True))
                filters += sum(mask.numel() for mask in masks)
        return gated / images, dense / images, right / filters
