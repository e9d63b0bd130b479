"""Memory aware synapses: what matters is what the outputs are sensitive to; labels are not asked.

Paper: Aljundi, Babiloni, Elhoseiny, Rohrbach, Tuytelaars, ECCV 2018, arXiv 1711.09601:

    Ω_j = (1/N) Σ_n |∂ ||f(x_n)||² / ∂θ_j|,     L(θ) = L_t(θ) + λ Σ_j Ω_j (θ_j - θ*_j)²,     θ* the latest solution

Ω adds up over tasks; f are the logits. There is no factor ½. gradients=batch_mean takes the absolute value after the
mean over a batch instead, where samples of opposite sign cancel.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fisherexp.config.types import Count, NonNegative
from fisherexp.data.batch import Batch
from fisherexp.methods.continual_learning.anchored import AnchoredTraining, added
from fisherexp.methods.recipe import Recipe
from fisherexp.ranks import over_ranks
from fisherexp.scenarios.setting import Setting


def sensitivities(model: nn.Module, batches: Iterable[Batch], per_sample: bool) -> dict[str, Tensor]:
    """Sums over samples of |∂ ||f(x)||² / ∂θ|, by parameter; and under "samples" how many there were.

    The model is in eval mode. per_sample: absolute value of each sample's gradient; otherwise of a batch's mean.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def squared_norm(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(model, parameters, (image[None],)).square().sum()

    def mean_squared_norm(parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        return functional_call(model, parameters, (images,)).square().sum(1).mean()

    each = vmap(grad(squared_norm), in_dims=(None, 0))
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    samples = 0
    for batch in batches:
        images = batch.inputs
        if per_sample:
            found = {name: g.abs().sum(0) for name, g in each(parameters, images).items()}
        else:
            found = {name: len(images) * g.abs() for name, g in grad(mean_squared_norm)(parameters, images).items()}
        total, samples = added(total, found), samples + len(images)
    return total | {"samples": torch.tensor(float(samples), device=images.device)}


class MAS(AnchoredTraining):
    """gradients, batch_size: of Ω, see above; per_sample does not depend on the batch size."""

    paper = "Aljundi et al., ECCV 2018, arXiv 1711.09601"
    requires = ("class_labels",)  # it differentiates one vector of outputs for each sample
    search = {"lambda_": "tag(log, interval(0.01, 10))"}
    factor = 1.0
    weighs_samples = False

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        lambda_: NonNegative,
        gradients: Literal["per_sample", "batch_mean"],
        batch_size: Count,
        **options,
    ) -> None:
        super().__init__(model, training, lambda_, **options)
        self.gradients, self.batch_size = gradients, batch_size

    def finish_task(self, task: Setting) -> None:
        per_sample = self.gradients == "per_sample"
        # Ranks would cut other batches: each goes through all of them.
        task = task if per_sample else replace(task, rank=0, world_size=1)
        training = self.model.training
        self.model.eval()
        sums = sensitivities(self.model, task.loader("train", batch_size=self.batch_size), per_sample)
        self.model.train(training)
        sums = over_ranks(sums) if per_sample else sums
        samples = sums.pop("samples")
        self.remember({name: total / samples for name, total in sums.items()})
