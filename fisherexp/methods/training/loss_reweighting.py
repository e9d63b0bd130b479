"""Samples of a batch weighted by their own losses.

    min_θ  Σ_i w_i ℓ_i(θ),   w = softmax(f(h) / r),   h: the losses of the batch, scaled to -1 … 1

Sow et al., ICLR 2025, arXiv 2502.06733: to damp the samples that are known by now speeds training up. Weights are made
of the losses of the step at hand and are no part of its gradient. All weights are equal at first, while losses say
little. With several processes a batch is that of all of them.

The trainer of the authors' code weights a sequence by its share of the batch's tokens as well, its README does not;
here that is an option. The README's `uniform` is softmax(h / r); here it is what its name says.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from fisherexp.config.types import Positive, Probability
from fisherexp.data.batch import Batch
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.erm import ERM
from fisherexp.methods.training.loss_weights import loss_weights
from fisherexp.objectives.token_prediction import IGNORED
from fisherexp.ranks import joined_over_ranks


class LossReweighting(ERM):
    """strategy: f, which losses count most: 'linupper' all but small ones (min(h + 1, 1)), 'quadratic' middling ones
    (1 - h²), 'extremes' small and large ones (|h|), 'upper' large ones ((h + 1) / 2), 'uniform' all alike.
    temperature: r; the larger, the more alike. warmup: share of all steps at the beginning with equal weights.
    token_share: a sequence also counts by its number of tokens, relative to the mean of the batch.
    """

    paper = "Sow et al., ICLR 2025, arXiv 2502.06733"
    search = {"temperature": "tag(log, interval(0.1, 10))"}
    weighs_samples = False
    counts_with = {
        "temperature": {"warmup": 0.0},
        "token_share": {"/data": "fictitious_people", "/model": "small_gpt"},  # rows of several lengths
    }

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        strategy: Literal["linupper", "quadratic", "extremes", "upper", "uniform"] = "linupper",
        temperature: Positive = 1.0,
        warmup: Probability = 0.05,
        token_share: bool = False,
    ) -> None:
        super().__init__(model, training)
        self.strategy, self.temperature = strategy, temperature
        self.warmup, self.token_share = warmup, token_share

    def loss(self, batch: Batch) -> Tensor:
        losses = joined_over_ranks(self.objective.sample_losses(self.model(batch.inputs), batch.targets))
        warming_up = self.global_step < self.warmup * self.epochs * self.steps_per_epoch
        weights = loss_weights(losses, "uniform" if warming_up else self.strategy, self.temperature)
        if self.token_share:
            counts = joined_over_ranks(_tokens(batch.targets).to(losses.dtype))
            weights = weights * counts / counts.mean()
        return (weights * losses).sum()


def _tokens(targets: Tensor) -> Tensor:
    """How much is predicted of each sample, (B,): of a sequence its tokens, of any other one thing."""
    if targets.dtype != torch.int64 or targets.dim() == 1:
        return torch.ones(len(targets), device=targets.device)
    return (targets != IGNORED).sum(1)
