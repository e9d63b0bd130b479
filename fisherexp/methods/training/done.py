"""DONE: adversarial training that is doubly robust, against changes of images and of their distribution.

    min_θ  max_w Σ_i w_i ℓ_i(θ, x_i*) - r KL(w ‖ uniform)  =  min_θ  r log (1/n) Σ_i exp(ℓ_i(θ, x_i*) / r)

so w ∝ exp(ℓ / r), and hard samples count more. x_i* is the answer of a smooth attack (barrier_attack.py), and its
dependence on θ is part of the gradient. The logarithm of a mean over a batch is biased; so a moving average u of
exp(ℓ / r) takes the mean's place, and a step follows (1/B) Σ_i (exp(ℓ_i / r) / u) ∇ℓ_i.

Sow et al., ICLR 2024, arXiv 2308.00311. No code is published. Chosen here: r, the barrier's coefficient, the number and
form of inner steps, the rate of the average, the barrier's Hessian for the whole one.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fisherexp.config.types import Count, Positive, Probability, Share
from fisherexp.data.batch import Batch
from fisherexp.methods.mixup.mixing import intensities
from fisherexp.methods.recipe import Recipe
from fisherexp.methods.training.adversarial_training import evaluating
from fisherexp.methods.training.barrier_attack import barrier_attack, box_around, with_implicit_gradient
from fisherexp.methods.training.erm import ERM
from fisherexp.ranks import mean_over_ranks

MOST = 50.0  # of (ℓ - r log u) / r, so that no weight overflows


class DONE(ERM):
    """temperature: r; a very large one makes all samples count alike: adversarial training under the smooth attack.
    momentum: of u; 0 takes the batch's own mean. radius: ε, of pixels in 0 … 1. barrier: c. steps, step: of the attack,
    and the part of the way that each of them goes. implicit: count how x* follows θ.
    """

    paper = "Sow et al., ICLR 2024, arXiv 2308.00311"
    search = {"temperature": "tag(log, interval(0.1, 10))"}
    requires = ("images", "class_labels")
    weighs_samples = False

    def __init__(
        self,
        model: nn.Module,
        training: Recipe,
        temperature: Positive = 1.0,
        momentum: Share = 0.9,
        radius: Positive = 0.1,
        barrier: Positive = 0.1,
        steps: Count = 10,
        step: Probability = 0.5,
        implicit: bool = True,
    ) -> None:
        super().__init__(model, training)
        self.temperature, self.momentum, self.implicit = temperature, momentum, implicit
        self.radius, self.barrier, self.steps, self.step = radius, barrier, steps, step
        self.register_buffer("log_average", torch.tensor(-torch.inf))  # log u; nothing seen yet

    def loss(self, batch: Batch) -> Tensor:
        losses = self.attacked_losses(batch)
        scaled = (losses / self.temperature).detach()
        own = mean_over_ranks((scaled - scaled.amax()).exp().mean()).log() + scaled.amax()
        if self.log_average.isneginf():
            self.log_average.copy_(own)
        kept = torch.stack([self.log_average + _log(self.momentum), own + _log(1 - self.momentum)])
        self.log_average.copy_(kept.logsumexp(0))
        return ((scaled - self.log_average).clamp_max(MOST).exp() * losses).mean()

    def attacked_losses(self, batch: Batch) -> Tensor:
        """ℓ_i(θ, x_i*) (B,), with the gradient that `implicit` says."""
        images, labels = intensities(batch.inputs), batch.targets

        def losses(changed: Tensor) -> Tensor:
            return F.cross_entropy(self.model(changed), labels, reduction="none")

        box = box_around(images, self.radius)
        with evaluating(self.model):
            worst = barrier_attack(losses, images, box, self.barrier, self.steps, self.step)
        return with_implicit_gradient(losses, worst, box, self.barrier) if self.implicit else losses(worst)


def _log(share: float) -> float:
    return torch.tensor(share).log().item()
