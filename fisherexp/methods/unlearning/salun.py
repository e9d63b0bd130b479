"""SalUn: learn random labels for the forgotten data with the weights that are salient for them, and no others.

Paper: Fan, Liu, Zhang, Wong, Wei, Liu, ICLR 2024, arXiv 2310.12508. At the source weights θ_0, in eval mode,

    m_j = 1 where |Σ_b ∂CE(batch b of D_f)/∂θ_j| is among the largest `share` of all weights, else 0
    θ ← m ∘ (SGD step) + (1 - m) ∘ θ_0      on batches of D_f with labels ỹ ~ U{0 … C-1}, then of D_r

in every epoch, new labels each time; the true one may be drawn, as in the official code. That order is its one for
CIFAR-10 and SVHN; for other data it mixes D_f and D_r: order=mixed. With batch normalization the order matters,
because a batch of one class has statistics of its own.

Weights outside the mask are held where they were, as in the paper, also under weight decay. SGD and Adam go weight
by weight, so that taking their step back equals masking their gradient.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.types import Count, NonNegative, Positive, Probability
from fisherexp.data.batch import Batch
from fisherexp.methods.unlearning.batches import forgotten_then_retained, shuffled
from fisherexp.methods.unlearning.finetune import Finetune
from fisherexp.models.eval_mode import eval_mode
from fisherexp.ranks import over_ranks
from fisherexp.seeds import generator


def salient(saliency: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Masks of the largest `share` of all values together, by name. Of equal values the earlier are taken."""
    flat = torch.cat([values.flatten() for values in saliency.values()])
    largest = torch.argsort(flat, descending=True, stable=True)[: int(share * len(flat))]
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask[largest] = True
    parts = mask.split([values.numel() for values in saliency.values()])
    return {name: part.view_as(saliency[name]) for name, part in zip(saliency, parts, strict=True)}


def summed_gradients(model: nn.Module, batches: Any) -> dict[str, Tensor]:
    """Σ_b ∇ CE(batch b), in eval mode, by parameter."""
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    with eval_mode(model):
        for batch in batches:
            loss = F.cross_entropy(model(batch.inputs), batch.targets)
            gradients = torch.autograd.grad(loss, list(weights.values()))
            for total, gradient in zip(sums.values(), gradients, strict=True):
                total += gradient
    return sums


class Salun(Finetune):
    """share: of all weights that may change. order: of forgotten and retained samples in an epoch."""

    paper = "Fan et al., ICLR 2024, arXiv 2310.12508"
    requires = ("class_labels",)
    scenarios = ("forgetting",)
    start = "source"
    fits_on = "train"
    weighs_samples = False

    def __init__(
        self,
        model: nn.Module,
        share: Probability,
        order: Literal["forget_first", "mixed"],
        epochs: Count,
        lr: Positive,
        momentum: Probability,
        weight_decay: NonNegative,
        batch_size: Count,
    ) -> None:
        super().__init__(model, epochs, lr, momentum, weight_decay)
        self.share, self.order, self.batch_size = share, order, batch_size
        self.masks: dict[str, Tensor] | None = None
        self.label_key: tuple[str | int, ...] = ()
        self.num_classes = 0

    def batches(self, setting: Any) -> Any:
        self.label_key, self.num_classes = ("salun", setting.seed, setting.rank), setting.data.num_classes
        self.forget_set = setting.loader("forget", batch_size=self.batch_size)
        if self.order == "mixed":
            return shuffled(setting, setting.parts["train"].tagged(forgotten=setting.forgotten), self.batch_size)
        return forgotten_then_retained(setting, self.batch_size, self.batch_size)

    def on_train_start(self) -> None:
        if self.masks is None:
            gradients = over_ranks(summed_gradients(self.model, self.forget_set))
            self.masks = salient({name: gradient.abs() for name, gradient in gradients.items()}, self.share)
        self.masks = {name: mask.to(self.device) for name, mask in self.masks.items()}
        self.outcome = {"free_by_layer": {name: int(mask.sum()) for name, mask in self.masks.items()}}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # A function of where we are, so that a resumed fit draws the same.
        stream = generator(*self.label_key, self.current_epoch, batch_idx)
        drawn = torch.randint(self.num_classes, batch.targets.shape, generator=stream).to(batch.targets)
        targets = torch.where(batch.tags["forgotten"], drawn, batch.targets)
        return super().training_step(batch._replace(targets=targets), batch_idx)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        weights = {name: weight for name, weight in self.model.named_parameters() if name in self.masks}
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        super().optimizer_step(*arguments, **options)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(torch.where(self.masks[name], weight, before[name]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["masks"] = self.masks

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.masks = checkpoint["masks"]
